"""Options that several commands take, and their values as the library wants them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ierf.errors import UnknownNameError

DEFAULT_MODEL = "bundled:resnet18-tiny"


def one_of(name: str, *choices: str, help: str) -> Any:
    """An option that takes one of a few words, or nothing."""
    return typer.Option(name, metavar="|".join(choices), callback=_checked(name, choices), help=help)


def _checked(name: str, choices: tuple[str, ...]) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise UnknownNameError(f"choice for {name}", value, choices)
        return value

    return check


def _folder(path: Path) -> Path:
    """A folder, and not the file that somebody may have meant."""
    if path.suffix.lower() in {".html", ".htm", ".json", ".png", ".csv"} and not path.is_dir():
        raise typer.BadParameter(f"--out is a folder, into which files are written: --out {path.with_suffix('')}")
    return path


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, without those left to their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def parse_position(text: str) -> tuple[int, ...]:
    """A position "ROW,COLUMN" as numbers."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"a position is ROW,COLUMN, as in 7,9; got {text!r}") from None


Model = Annotated[
    str, typer.Option("--model", "-m", metavar="SPEC", help="Where the model comes from; `ierf models` lists sources.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="DIR", help="The folder to write to; made if missing.", callback=_folder),
]
Bias = Annotated[
    str | None,
    one_of("--bias", "norm", "uniform", "drop", help="Who inherits a bias’s relevance: norm (default) conserves."),
]
Head = Annotated[
    str | None,
    one_of("--head", "clamped", "mean", "raw", "integrated", help="The final ratio of a class; default: clamped."),
]
Unknown = Annotated[
    str | None, one_of("--unknown", "raise", "gradient", help="What an operation without a rule does; default: raise.")
]
