"""`ierf check`: does the relevance add up? The ledger as a table."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ierf.attribution import Entry, Ledger, check_conservation, usual_method
from ierf.cli.app import DEFAULT_MODEL, Bias, Device, Model, Unknown, given, out, say
from ierf.model import load
from ierf.report import ledger_sentence, percent

SEED = 0


def check(
    model: Model = DEFAULT_MODEL,
    photo: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A photograph; default: noise, the same each time.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Start at this layer instead of at the class.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="srd, attnlrp or cp_lrp; default: attnlrp for transformers.")
    ] = None,
    bias: Bias = None,
    unknown: Unknown = None,
    device: Device = "cpu",
) -> None:
    """Follow the relevance from the class to the pixels and show, layer by layer, what was lost and where.

    The exit status is 1 if more than 0.01 % is lost. SRD should lose nothing; AttnLRP and CP-LRP lose what biases,
    added constants and the softmax keep.

    Examples:

        ierf check

        ierf check --model timm:resnet50.a1_in1k --photo cat.jpg

        ierf check --bias drop

        ierf check --model timm:vit_base_patch16_224 --method cp_lrp
    """
    loaded = load(model, device)
    if photo is None:
        size = loaded.preprocess.shape
        x = torch.randn(1, *size, generator=torch.Generator().manual_seed(SEED)).to(loaded.device, loaded.dtype)
    else:
        x = loaded.prepare(photo)
    options = given(bias=bias, unknown=unknown)
    ledger = check_conservation(loaded, x, method or usual_method(loaded), layer, **options)
    out().print(ledger_table(ledger))
    conserved = ledger.conserved()
    say(f"{'conserved' if conserved else 'not conserved'}: {ledger_sentence(ledger)}", "green" if conserved else "red")
    raise typer.Exit(0 if conserved else 1)


def ledger_table(ledger: Ledger) -> Table:
    """One row per stretch of the network, from the start to the pixels: what arrived, went on, leaked, and where."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer", overflow="fold")
    for heading in ("relevance in", "out", "leaked", "of total"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("operation", overflow="fold")
    for entry in ledger.entries:
        share = entry.leaked / ledger.relevance_in if ledger.relevance_in else 0.0
        numbers = (f"{entry.relevance_in:.6g}", f"{entry.relevance_out:.6g}", f"{entry.leaked:.2g}", percent(share))
        table.add_row(Text(entry.layer), *numbers, Text(_largest_leak(entry, ledger.relevance_in)))
    return table


def _largest_leak(entry: Entry, total: float) -> str:
    """The operation that lost the most, where that is more than rounding."""
    if not entry.leaks or abs(entry.leaks[0].amount) <= 1e-6 * abs(total):
        return ""
    leak = entry.leaks[0]
    return f"{leak.operation} in {leak.module}" if leak.module else leak.operation
