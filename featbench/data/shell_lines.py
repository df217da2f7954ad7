"""Shell lines for error messages, which bring a folder of images into a layout that featbench reads."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from featbench.data.walk import is_image, list_folder
from featbench.terminal import UNSAFE, one_line

# where a file name may hold the class: in words, as a pattern, and in the shell
_PATTERNS = (
    ("what stands before the first dot", r"[^.]+(?=\..*\.)", "${name%%.*}"),
    ("the letters that it begins with", r"[A-Za-z]+", "${name%%[!A-Za-z]*}"),
)
_SHOWN = 6


def listed(names: Iterable[str]) -> str:
    """Join names as in a sentence; of many the first few."""
    all_names = [one_line(name) for name in names]
    if len(all_names) > _SHOWN:
        return f"{', '.join(all_names[:_SHOWN])} and {len(all_names) - _SHOWN} more"
    return " and ".join(filter(None, [", ".join(all_names[:-1]), *all_names[-1:]]))


def quoted(path: Path | str) -> str:
    """Write a path as the shell takes it, in one line that is safe to print."""
    text = str(path)
    if not UNSAFE.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    octal = UNSAFE.sub(lambda found: "".join(f"\\{byte:03o}" for byte in os.fsencode(found.group())), escaped)
    return f"$'{octal}'"


def block(*lines: str) -> str:
    """Set lines apart from the text around them."""
    return "\n\n" + "\n".join(lines)


def hide_lines(folders: Iterable[Path]) -> str:
    """Return lines that hide class folders, which are not read then."""
    return block(*(f"mv -- {quoted(folder)} {quoted(folder.with_name(f'.{folder.name}'))}" for folder in folders))


def split_lines(root: Path, folders: Sequence[Path], known: Mapping[str, str]) -> str:
    """Return lines that rename folders to splits, or that make classes of them."""
    free = [name for name in ("train", "test", "val") if not any(known.get(f.name.lower()) == name for f in folders)]
    lines = []
    for folder in sorted(folders, key=lambda folder: not _guess(folder, known)):
        guess = _guess(folder, known)
        name = guess if guess in free else next(iter(free), "") if guess is None else ""
        if folder.name.lower() not in known and name:
            free.remove(name)
            lines.append(f"mv -- {quoted(folder)} {quoted(root / name)}")
    each = " ".join(f"{quoted(folder)}/*/*" for folder in folders)
    up = f'for file in {each}; do mv -n -- "$file" "${{file%/*}}_${{file##*/}}"; done'
    return (
        " Where they are splits, rename them, as in"
        + block(*lines)
        + "\n\nWhere they are classes, bring the images of the folders in them up:"
        + block(up)
    )


def _guess(folder: Path, known: Mapping[str, str]) -> str | None:
    """Guess which split a folder is: `train_set` is train."""
    return next((split for name, split in known.items() if name in folder.name.lower()), None)


def flat_lines(folders: Sequence[Path]) -> str:
    """Return lines that make folders of classes from the names of files, if the names seem to hold the class."""
    names = [entry.name for folder in folders for entry in list_folder(folder) if is_image(entry)]
    found = [(words, in_shell, groups) for words, pattern, in_shell in _PATTERNS if (groups := _groups(names, pattern))]
    if not found:
        new = " ".join(quoted(folders[0] / name) for name in ("cat", "dog"))
        return (
            " Each class needs a folder of its own, and the file names do not seem to contain it. Make one for "
            "each class, as in" + block(f"mkdir -- {new}") + "\n\nand move its images there."
        )
    words, in_shell, groups = found[0]
    endings = " ".join(sorted({f"*{Path(name).suffix}" for name in names}))
    loop = f'for name in {endings}; do mkdir -p -- "{in_shell}" && mv -n -- "$name" "{in_shell}/"; done'
    return (
        f" Each class needs a folder of its own. If {words} of a file name is its class, here {listed(groups)}, these "
        "lines make the folders:" + block(*(f"(cd -- {quoted(folder)} && {loop})" for folder in folders))
    )


def _groups(names: Sequence[str], pattern: str) -> list[str]:
    """Return the classes in names by a pattern; none where it does not fit, or each file would be its own class."""
    found = [re.match(pattern, name) for name in names]
    groups = sorted({match.group() for match in found if match})
    return groups if all(found) and 2 <= len(groups) <= len(names) / 2 else []
