"""Exact duplicates: images that are in two splits, which is a leak, or under two classes.

Files are compared byte for byte, arrays pixel for pixel; a copy that was resized or compressed anew is not found.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from itertools import combinations

from featbench.data.splits import Split

_Place = tuple[str, int]  # id, label


def describe_duplicates(splits: Mapping[str, Split], left_out: Container[str] = ()) -> list[str]:
    """Say what is wrong, one sentence each: images of one split that are also in another, and those of two classes.

    Args:
        splits: The splits.
        left_out: Ids of images that do not count, since they cannot be read.
    """
    places = {name: _places(split, left_out) for name, split in splits.items()}
    order = [name for name in ("train", "val", "test") if name in places]
    leaks = (_leak(places, first, second) for first, second in combinations(order, 2))
    return [sentence for sentence in (*leaks, _two_classes(places)) if sentence]


def _places(split: Split, left_out: Container[str]) -> dict[str, list[_Place]]:
    """Group the images of a split by their content."""
    places: dict[str, list[_Place]] = {}
    for content, name, label in zip(split.hashes, split.ids, split.labels.tolist(), strict=True):
        if content is not None and name not in left_out:
            places.setdefault(content, []).append((name, label))
    return places


def _leak(places: Mapping[str, dict[str, list[_Place]]], first: str, second: str) -> str:
    shared = [content for content in places[second] if content in places[first]]
    if not shared:
        return ""
    count = sum(len(places[second][content]) for content in shared)
    images = f"1 image of {second} is" if count == 1 else f"{count:,} images of {second} are"
    example = f"{places[second][shared[0]][0][0]} is {places[first][shared[0]][0][0]}"
    return f"{images} in {first} too, a leak that makes {second} accuracy look better than it is: {example}"


def _two_classes(places: Mapping[str, dict[str, list[_Place]]]) -> str:
    everywhere: dict[str, list[_Place]] = {}
    for split in places.values():
        for content, found in split.items():
            everywhere.setdefault(content, []).extend(found)
    doubtful = []  # for each content under two classes, the ids of two such images
    for found in everywhere.values():
        other = next((place for place in found if place[1] != found[0][1]), None)
        if other is not None:
            doubtful.append((found[0][0], other[0]))
    if not doubtful:
        return ""
    images = "1 image is" if len(doubtful) == 1 else f"{len(doubtful):,} images are"
    return f"{images} under two classes, so that one label must be wrong: {' is '.join(doubtful[0])}"
