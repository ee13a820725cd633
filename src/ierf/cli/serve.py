"""`ierf serve`: a page on which photographs are explained as they are dropped."""

from typing import Annotated

import typer

from ierf.cli.app import DEFAULT_MODEL, Device, Model, Unknown, given, say
from ierf.extras import extra
from ierf.model import load


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
