"""`featbench docs`: the manual, pages of Markdown that come with the package."""

from __future__ import annotations

import sys
from importlib import resources
from typing import Annotated

import typer

from featbench.cli.options import exit_codes, print_columns
from featbench.errors import unknown
from featbench.terminal import print_text, visible


def pages() -> dict[str, str]:
    """Return the pages of the manual: topic -> Markdown, a title and then a paragraph of one line."""
    folder = resources.files("featbench") / "docs"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".md"): file.read_text("utf-8") for file in files if file.name.endswith(".md")}


def _topics(incomplete: str) -> list[str]:
    return [topic for topic in pages() if topic.startswith(incomplete)]


def docs(
    topic: Annotated[
        str | None,
        typer.Argument(metavar="TOPIC", help="A page.", show_default="list the pages", autocompletion=_topics),
    ] = None,
) -> None:
    """Print a page of the manual, or list the pages."""
    with exit_codes():
        found = pages()
        if topic is None:
            print_columns((name, text.splitlines()[2]) for name, text in found.items())
        elif topic not in found:
            raise unknown("topic", topic, found)
        elif sys.stdout is not None and sys.stdout.isatty():
            _print_formatted(found[topic])
        else:
            print_text(found[topic])


def _print_formatted(text: str) -> None:
    from rich.markdown import Markdown  # other commands need none
    from rich.theme import Theme

    from featbench.progress_bars import make_console

    console = make_console()
    with console.use_theme(Theme({"markdown.code": "bold", "markdown.code_block": "bold"})):
        console.print(Markdown(visible(text), hyperlinks=False))
