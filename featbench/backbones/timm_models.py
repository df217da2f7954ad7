"""`timm:NAME`: the networks of timm with their own weights and preprocessing; timm is installed by featbench[timm].

Weights come as safetensors files from timm's place on the Hugging Face hub, and are kept in its own cache.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featbench.backbones.checkpoints import read_state_dict
from featbench.backbones.spec import Architecture, Pretrained
from featbench.backbones.tracing import Traced, trace
from featbench.data.preprocess import Preprocess
from featbench.errors import UsageError, WeightsError, first_line, unknown

PREFIX = "timm:"
_FILE = "model.safetensors"
_INTERPOLATIONS = ("bilinear", "bicubic")
_UNTAGGED = "pretrained"


def timm_architecture(name: str) -> Architecture:
    """Look up a `timm:NAME`, where NAME may end with a tag of weights, as in "timm:resnet18.a1_in1k".

    Raises:
        UsageError: timm is not installed, has no such network or weights, or its preprocessing cannot be done here.
    """
    timm = _import(name)
    given = name.removeprefix(PREFIX)
    base, tag = _current(timm, given)
    if not timm.is_model(base):
        raise unknown(
            "timm network", base, timm.list_models(), listed_by="python -c 'import timm; print(timm.list_models())'"
        )
    configs = {config.tag or _UNTAGGED: config for config in timm.models.get_arch_pretrained_cfgs(base).values()}
    if tag and tag not in configs:
        raise unknown(f"weights of {PREFIX}{base}", tag, configs)
    default = tag or next(iter(configs), "")
    with_weights = {label: config for label, config in configs.items() if config.has_weights and tag in ("", label)}
    first = configs.get(default) or timm.models.PretrainedCfg()
    return Architecture(
        name,
        lambda size_px: timm.create_model(base, pretrained=False, **_size(first, size_px)),
        _preprocess(name, timm, first),
        trace=lambda network: _trace(timm, network),
        adapt=_adapt,
        default_weights=default if default in with_weights else None,
        pretrained={label: _pretrained(name, timm, config) for label, config in with_weights.items()},
        foreign=True,
        notes=()
        if given.partition(".")[0] == base
        else (f"{name} is what timm now calls {base}{f'.{tag}' if tag else ''}",),
    )


def _current(timm: Any, given: str) -> tuple[str, str]:
    """Return the architecture and the tag of a name, which may be one that timm had before and still takes."""
    base, _, tag = given.partition(".")
    now = timm.models.get_deprecated_models().get(base) or base
    base, _, its_tag = now.partition(".")
    return base, tag or its_tag


def _import(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"{name} needs timm, which is not installed; pip install featbench[timm]") from error
    return timm


def _preprocess(name: str, timm: Any, config: Any) -> Preprocess:
    """Read the preprocessing that timm does for evaluation."""
    data = timm.data.resolve_data_config({}, pretrained_cfg=config.to_dict())
    channels, height, width = data["input_size"]
    wrong = {
        f"images of {channels}x{height}x{width}": channels != 3 or height != width,
        f"crop_mode {data['crop_mode']!r}": data["crop_mode"] != "center",
        f"interpolation {data['interpolation']!r}": data["interpolation"] not in _INTERPOLATIONS,
    }
    if any(wrong.values()):
        raise UsageError(
            f"{name} wants {', '.join(what for what, is_so in wrong.items() if is_so)}; featbench resizes the shorter "
            f"side ({' or '.join(_INTERPOLATIONS)}) and cuts out the centre square of an RGB image; use another network"
        )
    return Preprocess(
        resize_px=math.floor(height / data["crop_pct"]),
        crop_px=height,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
    )


def _pretrained(name: str, timm: Any, config: Any) -> Pretrained:
    return Pretrained(
        lambda: _preprocess(name, timm, config),
        lambda size_px, offline: _load(name, timm, config, size_px, offline=offline),
    )


def _load(name: str, timm: Any, config: Any, size_px: int, *, offline: bool) -> nn.Module:
    """Build a network with weights of timm's.

    Raises:
        WeightsError: They are missing and cannot be downloaded, or do not fit.
    """
    state = read_state_dict(_download(name, config, offline=offline))
    network: nn.Module = timm.create_model(
        f"{config.architecture}.{config.tag}" if config.tag else config.architecture,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": state},  # timm adapts names and position embeddings, and reads no file
        **_size(config, size_px),
    )
    return network


def _download(name: str, config: Any, *, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download

    if not config.hf_hub_id:
        raise WeightsError(
            f"timm has the weights of {name} as {config.url} only, not as safetensors; convert them, and set weights "
            "to the .safetensors file"
        )
    where = f"download {_FILE} of https://huggingface.co/{config.hf_hub_id} and set weights to it"
    with suppress(Exception):  # what is there already needs no network
        return Path(hf_hub_download(config.hf_hub_id, _FILE, local_files_only=True))
    if offline:
        raise WeightsError(f"the weights of {name} are missing and --offline forbids a download; {where}")
    try:
        return Path(hf_hub_download(config.hf_hub_id, _FILE, local_files_only=False))
    except Exception as error:
        raise WeightsError(f"the weights of {name} cannot be downloaded ({first_line(error)}); {where}") from error


def _adapt(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Change names and position embeddings as timm does for the weights that it downloads."""
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        return state if adapt is None else adapt(dict(state), network)
    except Exception as error:  # it takes for granted what a file may not have
        raise ValueError(f"timm cannot adapt them: {type(error).__name__}") from error


def _size(config: Any, size_px: int) -> dict[str, int]:
    """Return timm's argument for the size of images, where a network is made for one and this is another."""
    return {"img_size": size_px} if config.fixed_input_size and size_px != config.input_size[1] else {}


def _trace(timm: Any, network: nn.Module) -> Traced:
    return trace(
        network,
        leaves=timm.models.get_notrace_modules(),
        whole=timm.models.get_notrace_functions(),
        gives_classes=bool(getattr(network, "num_classes", 0)),
    )
