from __future__ import annotations

import numpy as np
import pytest
import torch

from featbench.backbones.pooling import POOLINGS, check_pooling, make_pool
from featbench.errors import UsageError

RNG = np.random.default_rng(0)


def pooled(pooling: str, output: np.ndarray) -> np.ndarray:
    pool = make_pool(pooling, output.shape[1:], "layer")
    result = pool(torch.from_numpy(output))
    assert result.shape == (len(output), pool.width)
    return result.numpy()


MAPS = RNG.normal(size=(2, 6, 4, 4)).astype(np.float32)  # (B, C, H, W)
LAST = RNG.normal(size=(2, 4, 4, 6)).astype(np.float32)  # (B, H, W, C), as Swin's
TOKENS = RNG.normal(size=(2, 5, 6)).astype(np.float32)  # (B, T, D)


@pytest.mark.parametrize(
    ("pooling", "output", "expected"),
    [
        ("avg", MAPS, MAPS.mean((2, 3))),
        ("max", MAPS, MAPS.max((2, 3))),
        ("avg:1", MAPS, MAPS.mean((2, 3))),
        ("avg:2", MAPS, MAPS.reshape(2, 6, 2, 2, 2, 2).mean((3, 5)).reshape(2, 24)),
        ("max:2", MAPS, MAPS.reshape(2, 6, 2, 2, 2, 2).max((3, 5)).reshape(2, 24)),
        ("avg:4", MAPS, MAPS.reshape(2, 96)),
        ("flatten", MAPS, MAPS.reshape(2, 96)),
        ("avg", LAST, LAST.mean((1, 2))),
        ("max", LAST, LAST.max((1, 2))),
        ("avg:2", LAST, LAST.reshape(2, 2, 2, 2, 2, 6).mean((2, 4)).transpose(0, 3, 1, 2).reshape(2, 24)),
        ("max:2", LAST, LAST.reshape(2, 2, 2, 2, 2, 6).max((2, 4)).transpose(0, 3, 1, 2).reshape(2, 24)),
        ("flatten", LAST, LAST.reshape(2, 96)),
        ("avg", TOKENS, TOKENS.mean(1)),
        ("max", TOKENS, TOKENS.max(1)),
        ("cls", TOKENS, TOKENS[:, 0]),
        ("tokens", TOKENS, TOKENS[:, 1:].mean(1)),
        ("flatten", TOKENS, TOKENS.reshape(2, 30)),
        ("avg", MAPS[:, :, 0, 0], MAPS[:, :, 0, 0]),
        ("max", MAPS[:, :, 0, 0], MAPS[:, :, 0, 0]),
        ("flatten", MAPS[:, :, 0, 0], MAPS[:, :, 0, 0]),
        ("flatten", MAPS[:, None], MAPS.reshape(2, 96)),
    ],
)
def test_poolings_by_hand(pooling: str, output: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(pooled(pooling, output), expected, rtol=1e-5, atol=1e-6)


def test_cells_of_a_grid_that_does_not_divide_the_map_overlap() -> None:
    maps = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    expected = [
        maps[0, 0, rows, columns].mean() for rows in (np.s_[:3], np.s_[2:]) for columns in (np.s_[:3], np.s_[2:])
    ]
    np.testing.assert_allclose(pooled("avg:2", maps)[0], expected)


@pytest.mark.parametrize(("pooling", "output"), [("flatten", MAPS), ("cls", TOKENS), ("avg", MAPS[:, :, 0, 0])])
def test_the_result_does_not_share_memory_with_the_output(pooling: str, output: np.ndarray) -> None:
    before = torch.from_numpy(output.copy())
    result = make_pool(pooling, output.shape[1:], "layer")(before)
    kept = result.clone()
    before.zero_()  # as an in-place operation behind the layer would
    assert torch.equal(result, kept)


@pytest.mark.parametrize(
    ("pooling", "shape", "message"),
    [
        ("cls", (6, 4, 4), r"'cls' makes no sense for layer 'layer', whose output is a map of shape .* avg:K, max:K"),
        ("tokens", (6, 4, 4), "whose output is a map"),
        ("avg:2", (5, 6), "whose output is a token sequence .* poolings that do: avg, max, flatten, cls, tokens"),
        ("avg:2", (6,), "whose output is a vector .* poolings that do: avg, max, flatten$"),
        ("cls", (6,), "whose output is a vector"),
        ("avg", (2, 6, 4, 4), "4-dimensional .* poolings that do: flatten$"),
        ("avg:5", (6, 4, 4), "its maps are 4x4; the finest grid is avg:4"),
        ("max:5", (4, 4, 6), "its maps are 4x4; the finest grid is max:4"),
    ],
)
def test_poolings_that_make_no_sense_name_those_that_do(pooling: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_pool(pooling, shape, "layer")


@pytest.mark.parametrize("pooling", [name.replace("K", "3") for name in POOLINGS])
def test_every_pooling_is_taken(pooling: str) -> None:
    check_pooling(pooling)


@pytest.mark.parametrize(
    ("pooling", "close"), [("agv", "avg"), ("avg:0", "avg:K"), ("max:", "max:K"), ("avg:x", "avg:K")]
)
def test_unknown_poolings_name_the_nearest(pooling: str, close: str) -> None:
    with pytest.raises(UsageError, match=f"unknown pooling '{pooling}'; did you mean '{close}'"):
        check_pooling(pooling)
