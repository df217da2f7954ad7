"""The description of a backbone before it is built, whichever library it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from featbench.backbones.tracing import Traced, trace
from featbench.data.preprocess import Preprocess
from featbench.errors import UsageError


@dataclass(frozen=True)
class Pretrained:
    """Weights by name: the preprocessing they were trained with, and how to build the network with them.

    `load(size_px, offline)` downloads what is missing, unless `offline`; `file()` says where downloads are kept.
    """

    preprocess: Callable[[], Preprocess]
    load: Callable[[int, bool], nn.Module]
    file: Callable[[], Path | None] = lambda: None


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        name: Its name in experiment files.
        make: Builds it with random weights, for square images of so many px.
        preprocess: What its images go through, where the weights do not say otherwise.
        trace: Finds its graph.
        default_weights: What is used when an experiment names no weights; None where it has to.
        pretrained: Weights that are downloaded, by name.
        bundled: Weights inside this package: name -> file.
        adapt: What its library does to weights of another size or with other names; a ValueError where it cannot.
        foreign: Whether its code is neither featbench's nor torchvision's, and may change under the same name.
        needs_size: Whether nothing but the experiment can say how large its images are.
        notes: Sentences for the user about it.
    """

    name: str
    make: Callable[[int], nn.Module]
    preprocess: Preprocess
    trace: Callable[[nn.Module], Traced] = trace
    default_weights: str | None = "random"
    pretrained: Mapping[str, Pretrained] = field(default_factory=dict)
    bundled: Mapping[str, Path] = field(default_factory=dict)
    adapt: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    foreign: bool = False
    needs_size: bool = False
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> list[str]:
        """The names that `weights` may have, besides a file's."""
        return [*self.pretrained, *self.bundled, "random"] if self.default_weights != "none" else []

    def preprocess_at(self, size_px: int | None, weights: str | None = None) -> Preprocess:
        """Return the preprocessing of some weights for images of a size; None is the weights' own.

        Raises:
            UsageError: The size is missing, and the architecture has none of its own.
        """
        if size_px is None and self.needs_size:
            raise UsageError(
                f"how large the images of {self.name} are is not known; set image_size, as in image_size = 224 "
                "(--image-size 224 of `featbench list layers`)"
            )
        own = self.pretrained[weights].preprocess() if weights and weights in self.pretrained else self.preprocess
        return own.at_size(size_px)
