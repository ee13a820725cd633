"""Models: what can be loaded (`models`), does relevance add up (`check`), a page that explains (`serve`)."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ierf.attribution import Entry, Ledger, check_conservation, usual_method
from ierf.cli.app import DEFAULT_MODEL, Bias, Device, Model, Unknown, given, out, say
from ierf.errors import IerfError, UnknownNameError
from ierf.extras import extra
from ierf.model import available, find_models, load
from ierf.report import ledger_sentence, percent


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


def serve(
    model: Model = DEFAULT_MODEL,
    bank: Annotated[
        str | None,
        typer.Option("--bank", "-b", metavar="DIR|hf:OWNER/NAME", help="Concepts, for graphs and interventions."),
    ] = None,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="0: any free one.")] = 8000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Whom to answer: 127.0.0.1 is this machine alone, 0.0.0.0 everyone.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="What a browser must know; default: none on this machine, else random."),
    ] = None,
    unknown: Unknown = None,
    device: Device = "cpu",
) -> None:
    """Explain photographs on a page: drop one, and see maps, effective receptive fields, concepts, interventions.

    Ctrl-C ends it. Nothing that is dropped is written to disk or sent elsewhere.

    Examples:

        ierf serve

        ierf serve --model timm:resnet50.a1_in1k --bank bank/ --port 8080
    """
    extra("fastapi", "serve")
    extra("uvicorn", "serve")
    from ierf.concepts import ConceptBank
    from ierf.report import server

    access, limits = server.Access.at(host, token), server.Limits()
    bound = server.listening(host, port)
    loaded = load(model, device)
    concepts = None if bank is None else ConceptBank.load(bank)
    served = server.ServedModel.of(loaded, concepts, **given(unknown=unknown))
    jobs = server.Jobs(limits)
    say(f"{loaded.name} at {server.address(bound, host, access.token)} (Ctrl-C ends it)")
    try:
        server.run(server.create_app(served, jobs, access, limits), bound)
    finally:
        jobs.close()
    say("stopped")
