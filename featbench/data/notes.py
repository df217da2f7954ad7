"""Notes on images that were read but may be faulty: counts by kind, with an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TWELVE_BITS, CONSTANT = "twelve_bits", "constant"
NOTES = {
    TWELVE_BITS: "16-bit grey with no value above 4,095, as 12-bit cameras save it: at most 16 of 256 grey levels "
    "remain; multiply the values by 16",
    CONSTANT: "of one colour, or nearly, once decoded; look at one of them",
}

Notes = Mapping[str, tuple[int, str]]
"""Kind -> the number of images, and the id of the first."""


def add_notes(*each: Notes) -> Notes:
    """Add up the notes of parts; the first part with an example gives it."""
    total: dict[str, tuple[int, str]] = {}
    for notes in each:
        for kind, (count, example) in notes.items():
            before, first = total.get(kind, (0, example))
            total[kind] = (before + count, first)
    return total


def count_notes(found: Iterable[tuple[str, str]]) -> Notes:
    """Count (kind, id) pairs."""
    return add_notes(*({kind: (1, image)} for kind, image in found))
