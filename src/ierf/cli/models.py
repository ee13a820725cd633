"""`ierf models`: what can be loaded, and from where."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ierf.cli.app import out, say
from ierf.errors import IerfError, UnknownNameError
from ierf.model import available, find_models


def models(
    containing: Annotated[str, typer.Argument(metavar="TEXT", help="List the models with this in their name.")] = "",
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only this source, such as timm.")] = None,
) -> None:
    """List where models come from, or the models of a name.

    Examples:

        ierf models

        ierf models convnext --source timm
    """
    offers = [offer for offer in available() if source in (None, offer.source)]
    if not offers:
        raise UnknownNameError("source of models", str(source), [offer.source for offer in available()])
    if containing:
        found = find_models(containing, source)
        if not found:
            raise IerfError(f"no model that is known here has {containing!r} in its name")
        for address in found:
            say(address)
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for offer in offers:
        about = Text.assemble((offer.what, "bold"), f", from {offer.home}\n{offer.examples}")
        table.add_row(Text(f"{offer.source}:"), about)
    out().print(table)
