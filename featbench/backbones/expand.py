"""The `layers` setting: `blocks` and shell-style patterns are replaced by names of layers."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from featbench.backbones.blocks import find_blocks
from featbench.backbones.shapes import Shapes, output_shapes
from featbench.backbones.tracing import BLOCKS, Traced
from featbench.errors import UsageError

_LISTED = 12


def expand_layers(traced: Traced, layers: Sequence[str], image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Replace `blocks` and each pattern by the layers they stand for, in the order they run.

    A `*` does not cross a dot, as it does not cross a slash in the shell: `layer*` is layer1 to layer4 of a ResNet, and
    `layer*.*` their blocks. No layer is repeated; the head, layers after it and layers that give no features
    are not included.

    Raises:
        UsageError: There is no such layer, a pattern matches none, or the network cannot take such images.
    """
    if not any(_stands_for_others(layer) for layer in layers):
        return tuple(layers)
    shapes = output_shapes(traced, image_shape)
    seen = {traced.find(layer) for layer in layers if not _stands_for_others(layer)}
    expanded: list[str] = []
    for layer in layers:
        if not _stands_for_others(layer):
            expanded.append(layer)
            continue
        for name in _blocks(traced, shapes) if layer == BLOCKS else _match(traced, layer, shapes):
            if traced.find(name) not in seen:
                seen.add(traced.find(name))
                expanded.append(name)
    return tuple(expanded)


def _stands_for_others(layer: str) -> bool:
    return layer == BLOCKS or any(character in layer for character in "*?[")


def _blocks(traced: Traced, shapes: Shapes) -> list[str]:
    found = find_blocks(traced, shapes)
    if not found:
        raise UsageError(f"{type(traced.network).__name__} has no layers with weights, so no blocks; name layers")
    return found


def _match(traced: Traced, pattern: str, shapes: Shapes) -> list[str]:
    names = traced.ordered_names()
    matching = [name for name in names if _matches(name, pattern)]
    body = set(traced.body.values())
    found = [name for name in matching if traced.find(name) in body and traced.find(name) in shapes]
    if matching and not found:
        raise UsageError(
            f"layers = {pattern!r} matches only the head, or what gives no features ({_list(matching)}); "
            "patterns stand for layers before the head, which is to be named outright"
        )
    if not found:
        parent = pattern.rpartition(".")[0]
        near = [name for name in names if "." in name and _matches(name.rpartition(".")[0], parent)]
        there = near or [name for name in names if "." not in name]
        raise UsageError(
            f"no layer matches {pattern!r} (a * does not cross a dot); there are {_list(there)}; "
            "`featbench list layers NAME` prints all"
        )
    return found


def _matches(name: str, pattern: str) -> bool:
    names, patterns = name.split("."), pattern.split(".")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _list(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
