"""Options that several commands take, and their values as the library wants them."""

from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_MODEL = "bundled:resnet18-tiny"

Model = Annotated[
    str, typer.Option("--model", "-m", metavar="SPEC", help="Where the model comes from; `ierf models` lists sources.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to; made if missing.")]
Bias = Annotated[
    str | None,
    typer.Option(
        metavar="norm|uniform|drop", help="Who inherits a bias’s relevance; norm (default) conserves, drop leaks."
    ),
]
Unknown = Annotated[
    str | None, typer.Option(metavar="raise|gradient", help="What an operation without a rule does; raise by default.")
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, without those left to their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def parse_position(text: str) -> tuple[int, ...]:
    """A position "ROW,COLUMN" as numbers."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"a position is ROW,COLUMN, as in 7,9; got {text!r}") from None
