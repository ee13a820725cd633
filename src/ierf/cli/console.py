"""Where the command writes: results to standard output, progress and errors to standard error."""

import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text


def out() -> Console:
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def err() -> Console:
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def complain(message: object) -> None:
    """One plain line on standard error."""
    typer.echo(f"error: {' '.join(str(message).split())}", err=True)


def say(text: str, style: str = "") -> None:
    """A line on standard output; `text` is not markup."""
    out().print(Text(text, style=style))


def say_path(path: Path) -> None:
    """A path alone on its line, never wrapped or coloured."""
    typer.echo(str(path))
