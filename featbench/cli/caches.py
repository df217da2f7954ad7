"""`featbench cache`: looks after the feature caches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featbench.cli.options import Cache, examples, exit_codes
from featbench.errors import UsageError
from featbench.places import feature_caches
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

        folder = feature_caches(cache)
        entries = list_cache(folder)
        for entry in entries:
            _print_entry(entry, folder)
        print_line(f"{len(entries)} in {folder}, {_size(sum(entry.n_bytes for entry in entries))}")


@caches.command("verify", epilog=examples("featbench cache verify"))
def verify_caches(cache: Cache = None) -> None:
    """Read every cache file against its checksums; exit code 1 if one is damaged or cannot be read."""
    with exit_codes():
        from featbench.features.opening import DamagedCacheError
        from featbench.features.upkeep import verify_cache

        n_files, problems = 0, []
        for _, problem in verify_cache(feature_caches(cache)):
            n_files += 1
            if problem is not None:
                problems.append(problem)
                print_line(f"featbench: {problem}", err=True)
        damaged = sum(isinstance(problem, DamagedCacheError) for problem in problems)
        unread = len(problems) - damaged
        rest = f"; {unread} could not be read" if unread else ""
        print_line(f"{n_files - unread} cache files read, {damaged or 'none'} damaged{rest}")
        if problems:
            raise typer.Exit(1)


@caches.command("prune", epilog=examples("featbench cache prune", "featbench cache prune --older-than 0 --yes"))
def prune_caches(
    cache: Cache = None,
    older_than: Annotated[float, typer.Option(metavar="DAYS", min=0, help="Days without use.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove cache files that were not used for some days, and damaged ones; asks first.

    `--older-than 0` empties the cache. What is in use or cannot be read stays, and so does all that links lead to.
    """
    with exit_codes():
        if not math.isfinite(older_than):
            raise UsageError(f"--older-than {older_than}: give a finite number of days")

        from featbench.features.opening import CacheInUseError
        from featbench.features.upkeep import list_cache, prune_cache

        folder = feature_caches(cache)
        entries = list_cache(folder)
        old = [e for e in entries if e.removable and (e.unused_s >= older_than * 86_400 or e.state == "damaged")]
        for entry in old:
            _print_entry(entry, folder)
        for entry in entries:
            if not entry.removable:
                typer.echo(f"featbench: {entry.path} stays: it {entry.about}", err=True)
        if not old:
            print_line(f"nothing in {folder} is damaged or was unused for {older_than:g} days")
        elif yes or typer.confirm(f"Remove these {len(old)} ({_size(sum(e.n_bytes for e in old))})?"):
            outcomes = prune_cache(old)
            removed = [entry for entry, problem in outcomes if problem is None]
            for _, problem in outcomes:
                if problem is not None:
                    print_line(f"featbench: {problem}", err=True)
            print_line(f"removed {len(removed)}, {_size(sum(e.n_bytes for e in removed))}")
            if not all(problem is None or isinstance(problem, CacheInUseError) for _, problem in outcomes):
                raise typer.Exit(1)


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
