"""`ierf models`: what can be loaded, and from where."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ierf.cli.console import out
from ierf.errors import IerfError, UnknownNameError
from ierf.model import available


def models(
    containing: Annotated[str, typer.Argument(metavar="FILTER", help="Only rows with this text.")] = "",
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only this source, such as timm.")] = None,
) -> None:
    """List where models come from and what each source has.

    Examples:

        ierf models

        ierf models --source timm
    """
    offers = available()
    if source is not None and source not in {offer.source for offer in offers}:
        raise UnknownNameError("source of models", source, [offer.source for offer in offers])
    rows = [
        offer
        for offer in offers
        if source in (None, offer.source) and containing.casefold() in " ".join(offer).casefold()
    ]
    if not rows:
        raise IerfError(f"no source of models matches {containing!r}")
    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for offer in rows:
        about = Text.assemble((offer.what, "bold"), f", from {offer.home}\n{offer.examples}")
        table.add_row(Text(f"{offer.source}:"), about)
    out().print(table)
