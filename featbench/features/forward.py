"""The forward pass of stage 1: from fitted images to the features of every layer, as fast as the machine allows.

In float32 the network runs as it is, so that features are the same bit by bit wherever a run was interrupted. In
bfloat16 it runs under autocast and, on a CPU and where the run is long enough to pay for it, compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from featbench.backbones.device import with_channels_last
from featbench.backbones.layers import FeatureNetwork
from featbench.data.preprocess import Preprocess
from featbench.progress import Progress

Precision = Literal["float32", "bfloat16"]
Outputs = dict[str, npt.NDArray[np.float32]]

# To compile took 4 to 20 s on two cores, and made bfloat16 1.4 (SqueezeNet) to 3 (ResNet-18) times as fast.
COMPILED_FROM_FLOPS = 8e12


def best_precision(device: torch.device) -> Precision:
    """Return "bfloat16" where the hardware has it, else "float32"."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")) else "float32"


class Forward:
    """Runs a feature network on batches.

    Args:
        features: The network and the names of what it gives.
        preprocess: Turns fitted images into its input.
        device: Where it runs.
        precision: Of the convolutions and matrix products; features come back as float32.
        batch_size: Images in a full batch.
        n_images: How many there are in all, which decides whether it pays to compile.
        progress: Warned where compiling fails.
        forget: Drop the networks that were compiled before, so that there is room for this one.
        compiled_from_flops: With fewer floating-point operations in all, bfloat16 on a CPU is not compiled.
    """

    def __init__(
        self,
        features: FeatureNetwork,
        preprocess: Preprocess,
        *,
        device: torch.device,
        precision: Precision,
        batch_size: int,
        image_shape: tuple[int, int, int],
        n_images: int,
        progress: Progress,
        forget: bool = True,
        compiled_from_flops: float = COMPILED_FROM_FLOPS,
    ) -> None:
        self._widths = dict(zip(features.layers, features.widths, strict=True))
        self.device = device
        self._bfloat16 = precision == "bfloat16"
        self._padded_to = 0
        network = with_channels_last(features.module.to(device))
        self.network: Callable[[Tensor], tuple[Tensor, ...]] = lambda images: network(preprocess.normalise(images))
        # a weight takes part in one multiply-add of each pixel at most, so that few images need no exact count
        n_weights = sum(parameter.numel() for parameter in features.module.parameters())
        may_pay = 2 * n_weights * image_shape[1] * image_shape[2] * n_images >= compiled_from_flops
        if self._bfloat16 and device.type == "cpu" and may_pay:
            blank = torch.zeros(batch_size, *image_shape, dtype=torch.uint8)
            # in float32: the counter takes an einsum apart where autocast does not see its parts
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                self.network(blank[:1])
            if counter.get_total_flops() * n_images >= compiled_from_flops:
                if forget:
                    torch.compiler.reset()  # it keeps eight networks, and would run a ninth uncompiled
                self._compile(_Standardised(network, preprocess), blank, progress)

    @property
    def compiled(self) -> bool:
        """Whether the network was compiled."""
        return self._padded_to > 0

    def start(self, images: Tensor) -> Callable[[], Outputs]:
        """Begin a batch: (B, C, h, w) uint8. The function returned waits for its (B, D) float32 features by layer."""
        count = len(images)
        if not count:
            return lambda: {layer: np.empty((0, width), np.float32) for layer, width in self._widths.items()}
        if self.device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()
        # A compiled network takes batches of one size, of one memory format and made outside of inference mode; for any
        # others it is compiled again.
        images = images.to(self.device, non_blocking=True)
        if count < self._padded_to:
            images = torch.cat([images, images.new_zeros(self._padded_to - count, *images.shape[1:])])
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            outputs = self.network(images)
            copies = [output[:count].float().to("cpu", non_blocking=True) for output in outputs]
        if self.device.type != "cuda":
            return lambda: self._arrays(copies)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def wait() -> Outputs:
            done.synchronize()
            return self._arrays(copies)

        return wait

    def _arrays(self, copies: list[Tensor]) -> Outputs:
        return {layer: copy.numpy() for layer, copy in zip(self._widths, copies, strict=True)}

    def _compile(self, network: nn.Module, blank: Tensor, progress: Progress) -> None:
        plain = self.network
        self.network = torch.compile(network, dynamic=False, options={"freezing": True})
        self._padded_to = len(blank)
        try:
            self.start(blank)()
        except (RuntimeError, OSError) as error:  # there is no C++ compiler, as a rule
            self.network, self._padded_to = plain, 0
            reason = str(error).strip().partition("\n")[0]
            progress.warn(f"going on without torch.compile, which fails here: {type(error).__name__}: {reason}")


class _Standardised(nn.Module):
    """A network with `Preprocess.normalise` before it, in a form that compiles into one loop over the pixels."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        self.mean = nn.Buffer(torch.tensor(preprocess.mean).view(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(preprocess.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network((images.float() / 255 - self.mean) / self.std)
        return outputs
