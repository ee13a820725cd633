"""What all commands share: the group, what they print and where, options, and files."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL.Image import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text
from typer.core import TyperGroup

from ierf.errors import IerfError, UnknownNameError
from ierf.files import write
from ierf.model import usable_device
from ierf.progress import Progress

DEFAULT_MODEL = "bundled:resnet18-tiny"
INTERRUPTED, USAGE = 130, 2
"""Exit statuses."""
_QUIET = 5.0
"""Seconds between lines where there is no terminal."""


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


def save_picture(picture: Image, path: Path) -> None:
    """Write a picture as PNG, whatever its file is called, and say where. Raises `IerfError` where that fails."""
    content = BytesIO()
    picture.save(content, "PNG")
    say_path(write(path, content.getvalue()))


def progress_bar(*columns: ProgressColumn, hidden: bool = False) -> Bar:
    """On standard error, if that is a terminal; by default what is done, a bar, counts and the time that is left."""
    usual = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*(columns or usual), console=err(), transient=True, disable=hidden or not err().is_terminal)


@contextmanager
def measuring() -> Iterator[Progress]:
    """A progress bar for the images of an experiment."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with progress_bar(*columns, TimeRemainingColumn()) as bar:
        yield shown_on(bar, "measuring")


def shown_on(bar: Bar, stage: str) -> Progress:
    """What shows on a bar how far a computation is, from `stage` on; without a terminal a line every few seconds."""
    task, last = bar.add_task(stage, total=None), time.monotonic()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        bar.update(task, description=stage, completed=done, total=total)
        if not err().is_terminal and time.monotonic() - last > _QUIET:
            last = time.monotonic()
            err().print(f"{stage} ({done} of {total})", highlight=False, markup=False, soft_wrap=True)

    return tell


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


def names_of(texts: list[str] | None) -> list[str] | None:
    """Names that commas separate; None for none."""
    return [name.strip() for text in texts or [] for name in text.split(",") if name.strip()] or None


def parse_position(text: str) -> tuple[int, ...]:
    """A position "ROW,COLUMN" as numbers."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"a position is ROW,COLUMN, as in 7,9; got {text!r}") from None


def warn(message: str) -> None:
    """One plain line on standard error; the command goes on."""
    typer.echo(f"warning: {message}", err=True)


def _device(value: str) -> str:
    usable_device(value)
    return value


def _dtype(value: str | None) -> str | None:
    if value == "bf16":
        warn("--dtype bf16 is called --dtype bfloat16 now")
        return "bfloat16"
    return _checked("--dtype", ("float32", "bfloat16"))(value)


Model = Annotated[
    str, typer.Option("--model", "-m", metavar="SPEC", help="Where the model comes from; `ierf models` lists sources.")
]
Device = Annotated[
    str, typer.Option(metavar="NAME", callback=_device, help="Where to compute: cpu, cuda, cuda:1, mps.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="float32|bfloat16", callback=_dtype, help="What products compute in; default: float32."
    ),
]
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


_FORMER = {"--layers": "--layer", "--classes": "--class"}
"""Options by their former names, taken for one version."""


def _by_present_names(args: list[str]) -> list[str]:
    """What was typed, with a warning for each option by its former name."""
    end = args.index("--") if "--" in args else len(args)
    found = []
    for word in args[:end]:
        name, equals, value = word.partition("=")
        if name in _FORMER:
            warn(f"{name} is called {_FORMER[name]} now")
        found.append(_FORMER.get(name, name) + equals + value)
    return [*found, *args[end:]]


class _Plain(TyperGroup):
    """A mistake that the library explains: one line, status 2. Ctrl-C: one line, status 130. A bug: its traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _by_present_names(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except IerfError as error:
            complain(error)
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt:
            typer.echo("\ninterrupted; what was finished stays", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Plain,
    name="ierf",
    help="Where a vision model looks, what it has learnt, and how one becomes the other.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ierf import __version__

        typer.echo(f"ierf {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Where a vision model looks, what it has learnt, and how one becomes the other.

    Begin with `ierf demo`, then `ierf explain cat.jpg`.
    """
    warnings.filterwarnings("ignore", module=r"(timm|torchvision|transformers)(\.|$)")
    for library in ("timm", "torchvision", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
