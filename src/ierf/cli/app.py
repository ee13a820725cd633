"""The command `ierf`: what all of its commands share."""

import logging
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ierf.cli.console import complain
from ierf.errors import IerfError

INTERRUPTED = 130
USAGE = 2


class _Plain(TyperGroup):
    """A mistake that the library explains: one line, status 2. Ctrl-C: one line, status 130. A bug: its traceback."""

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
