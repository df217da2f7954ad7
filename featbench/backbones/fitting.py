"""Loading a weights file: its tensors are matched to the network's by name, whatever prefix they have.

A file's names may have any prefix (as "state_dict.module.encoder_q."): the one before most of the network's names is
removed. The head may be missing, have another name, or be made for other classes, since features
do not need it. Tensors that cannot be matched are an error; those that are ignored are listed in the notes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from featbench.backbones.checkpoints import read_state_dict
from featbench.backbones.tracing import Traced
from featbench.errors import WeightsError, first_line, list_names

State = Mapping[str, Tensor]
Adapt = Callable[[nn.Module, State], State]


@dataclass(frozen=True)
class Loaded:
    """The outcome of loading a file.

    Attributes:
        has_head: Whether the head has its weights.
        notes: Sentences for the user: which tensors were ignored.
    """

    has_head: bool
    notes: tuple[str, ...] = ()


def load_file(traced: Traced, path: Path, part: str = "", adapt: Adapt | None = None) -> Loaded:
    """Load a weights file into a network.

    The head may be missing, have another name, or be made for other classes. Tensors that
    the eval forward does not use, as those of auxiliary heads, may be missing, too.

    Args:
        traced: The network.
        path: The file.
        part: Prefix of the tensors to load, as in "teacher"; "" finds it.
        adapt: The network library's own conversion of weights of another size or with other names.

    Raises:
        WeightsError: Two parts of the file fit as well, or any other tensor is missing, unexpected or of the wrong
            shape; the message lists them.
    """
    names = _Names(traced)
    everything = read_state_dict(path)
    prefix = _find_prefix(everything, part, names, path)
    inside = {name.removeprefix(prefix): tensor for name, tensor in everything.items() if name.startswith(prefix)}
    given, notes = names.sort_heads(inside)
    problems = names.problems(given)
    if problems and adapt is not None:
        with suppress(ValueError):
            adapted = adapt(traced.network, inside)
            candidate = names.sort_heads(adapted)
            if not names.problems(candidate[0]):
                given, notes, problems = *candidate, {}
                notes.append(_changes(inside, adapted))
    if problems:
        found = "; ".join(f"{len(listed)} {kind}: {list_names(sorted(listed))}" for kind, listed in problems.items())
        under = f" under {prefix[:-1]!r}" if prefix else ""
        raise WeightsError(f"{path} does not fit {names.network}{under}; tensors {found}{names.hint(inside)}")
    try:
        traced.network.load_state_dict(given, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit {names.network}: {first_line(error)}") from error
    if len(everything) > len(inside):
        others = {name.split(".")[0] for name in everything if not name.startswith(prefix)}
        count = len(everything) - len(inside)
        listed = list_names(sorted(others))
        notes.append(f"of its tensors those under {prefix[:-1]!r} are used, and {count} others ({listed}) not")
    return Loaded(names.head.keys() <= given.keys(), tuple(f"{path}: {note}" for note in notes))


class _Names:
    """The names of a network's tensors, those of its head apart."""

    def __init__(self, traced: Traced) -> None:
        self.network = type(traced.network).__name__
        self._traced = traced
        self._wanted = traced.network.state_dict()
        self._head_name = traced.head_name if traced.head is not None else ""
        self.head = {name: tensor for name, tensor in self._wanted.items() if self._in_head(name)}
        self.body = {name: tensor for name, tensor in self._wanted.items() if name not in self.head}

    def problems(self, given: State) -> dict[str, set[str]]:
        """Return the tensors that cannot be loaded, by what is wrong with them."""
        misshapen = {name for name in given.keys() & self.body.keys() if given[name].shape != self.body[name].shape}
        missing = {
            name
            for name in self.body.keys() - given.keys()
            if not (name.endswith("num_batches_tracked") or self._traced.unused(name))
        }
        found = {"missing": missing, "unexpected": given.keys() - self._wanted.keys(), "of another shape": misshapen}
        return {kind: set(names) for kind, names in found.items() if names}

    def sort_heads(self, given: State) -> tuple[dict[str, Tensor], list[str]]:
        """Rename the head to the network's own name, and drop heads of other networks; the notes list them."""
        modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name in given.keys() - self.body.keys():
            module, _, last = name.rpartition(".")
            modules[module][last] = given[name]
        heads = {module: tensors for module, tensors in modules.items() if self._is_head(module, tensors)}
        fitting = [module for module, tensors in heads.items() if self._fits(tensors)]
        chosen = self._head_name if self._head_name in fitting else fitting[0] if len(fitting) == 1 else None
        sorted_ = {name: tensor for name, tensor in given.items() if name.rpartition(".")[0] not in heads}
        notes = []
        if chosen is not None:
            sorted_ |= {f"{self._head_name}.{last}": tensor for last, tensor in heads[chosen].items()}
            if chosen != self._head_name:
                notes.append(f"its head {chosen!r} is taken for {self._head_name!r}")
        if others := sorted(heads.keys() - {chosen}):
            notes.append(
                f"{list_names(others)} is ignored, as a head for other classes"
                if len(others) == 1
                else f"the heads {list_names(others)} are ignored"
            )
        return sorted_, notes

    def hint(self, given: State) -> str:
        """Return a sentence for the error where most of a file's names are not the network's; else ""."""
        known = len(given.keys() & self._wanted.keys())
        if known >= len(self.body) / 2:
            return ""
        return (
            f". Only {known} of the network's {len(self._wanted)} names are in the file, which has "
            f"{list_names(list(given)[:3])}, ...: is it of another network?"
        )

    def _in_head(self, name: str) -> bool:
        return bool(self._head_name) and f"{name}.".startswith(f"{self._head_name}.")

    def _is_head(self, module: str, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether tensors outside the body are a head, judging by their module and shape."""
        if not self._head_name:
            return False
        if self._in_head(module):
            return True
        parent = module.rpartition(".")[0]
        beside = not parent or f"{self._head_name}.".startswith(f"{parent}.")
        apart = not any(name.split(".")[0] == module.split(".")[0] for name in self.body)
        weight, wanted = tensors.get("weight"), self.head[f"{self._head_name}.weight"]
        return (
            (beside or apart)
            and weight is not None
            and weight.ndim == wanted.ndim
            and weight.shape[1:] == wanted.shape[1:]
            and weight.shape[0] != weight.shape[1]  # a square one is a layer, as a pooler, rather than a head
            and tensors.keys() <= {"weight", "bias"}
        )

    def _fits(self, tensors: Mapping[str, Tensor]) -> bool:
        wanted = {name.removeprefix(f"{self._head_name}."): tensor.shape for name, tensor in self.head.items()}
        return wanted == {last: tensor.shape for last, tensor in tensors.items()}


def _find_prefix(everything: State, part: str, names: _Names, path: Path) -> str:
    """Return the prefix of the tensors to load, with its dot.

    Raises:
        WeightsError: Two prefixes fit as well, or there is no such part.
    """
    start = f"{part}." if part else ""
    votes: Counter[str] = Counter()
    for name, tensor in everything.items():
        ends = [0, *(place + 1 for place, character in enumerate(name) if character == ".")]
        for end in ends if name.startswith(start) else ():
            wanted = names.body.get(name[end:])
            if wanted is not None and end >= len(start):
                votes[name[:end]] += 2 + (wanted.shape == tensor.shape)
    if not any(name.startswith(start) for name in everything):
        parts = dict.fromkeys(name.split(".")[0] for name in everything)
        raise WeightsError(f"{path} has nothing under {part!r}; it has {list_names(list(parts))}")
    best = [prefix for prefix, count in votes.items() if count == max(votes.values())]
    if len(best) > 1:
        parts = dict.fromkeys(prefix[:-1] or "no name" for prefix in best)
        raise WeightsError(
            f"{path} holds {len(best)} networks that fit {names.network}, under {list_names(map(repr, parts))}; "
            f'name one, as in weights = "{path.name}#{best[-1][:-1]}"'
        )
    return best[0] if best else start


def _changes(before: State, after: State) -> str:
    resized = list_names(
        sorted(name for name in before.keys() & after.keys() if before[name].shape != after[name].shape)
    )
    if before.keys() == after.keys():
        return f"{resized} resized for the size of the images"
    return "its names are changed to those of this network" + (f", {resized} resized" if resized else "")
