"""`featbench cache`: looks after the feature caches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featbench.commands.options import Cache, examples, exit_codes, home
from featbench.errors import UsageError
from featbench.terminal import print_line

if TYPE_CHECKING:
    from featbench.features.upkeep import Entry

caches = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look after the feature caches.",
    epilog=examples("featbench cache list", "featbench cache prune"),
)


@caches.command("list", epilog=examples("featbench cache list", "featbench cache list --cache /data/features"))
def list_caches(cache: Cache = None) -> None:
    """Print what is cached, with its size and how long ago it was used."""
    with exit_codes():
        from featbench.features.upkeep import list_cache

        folder = cache or home() / "features"
        entries = list_cache(folder)
        for entry in entries:
            _print_entry(entry, folder)
        print_line(f"{len(entries)} in {folder}, {_size(sum(entry.n_bytes for entry in entries))}")


@caches.command("verify", epilog=examples("featbench cache verify"))
def verify_caches(cache: Cache = None) -> None:
    """Read every cache file against its checksums; exit code 1 if one is damaged."""
    with exit_codes():
        from featbench.features.upkeep import verify_cache

        wrong = [0, 0]
        for _, problem in verify_cache(cache or home() / "features"):
            wrong[problem is not None] += 1
            if problem is not None:
                print_line(f"featbench: {problem}", err=True)
        print_line(f"{sum(wrong)} cache files read, {wrong[1] or 'none'} damaged")
        if wrong[1]:
            raise typer.Exit(1)


@caches.command("prune", epilog=examples("featbench cache prune", "featbench cache prune --older-than 0 --yes"))
def prune_caches(
    cache: Cache = None,
    older_than: Annotated[float, typer.Option(metavar="DAYS", min=0, help="Days without use.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove cache files that were not used for some days, and damaged ones; asks first.

    `--older-than 0` empties the cache.
    """
    with exit_codes():
        if not math.isfinite(older_than):
            raise UsageError(f"--older-than {older_than}: give a finite number of days")

        from featbench.features.upkeep import list_cache, prune_cache

        folder = cache or home() / "features"
        old = [e for e in list_cache(folder) if e.unused_s >= older_than * 86_400 or e.state == "damaged"]
        for entry in old:
            _print_entry(entry, folder)
        if not old:
            print_line(f"nothing in {folder} is damaged or was unused for {older_than:g} days")
        elif yes or typer.confirm(f"Remove these {len(old)} ({_size(sum(e.n_bytes for e in old))})?"):
            removed = prune_cache(old)
            busy = f"; {len(old) - len(removed)} in use by another process" if len(removed) < len(old) else ""
            print_line(f"removed {len(removed)}, {_size(sum(e.n_bytes for e in removed))}{busy}")


def _print_entry(entry: Entry, folder: Path) -> None:
    name = entry.path.relative_to(folder).as_posix()
    days = f"{entry.unused_s / 86_400:.0f} days"
    print_line(f"{_size(entry.n_bytes):>9}  {days:>8}  {entry.state:<10}  {name}  {entry.about}")


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
