"""`ierf concepts`: find the concepts of a store, look at them, compare two banks."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer
from rich import box
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ierf.cli.app import Device, names_of, one_of, out, progress_bar, say, say_path
from ierf.concepts import ConceptBank, match_concepts
from ierf.concepts.bank_fitting import L0_RATIO
from ierf.errors import IerfError
from ierf.experiments.extractors import ALIKE
from ierf.model import VisionModel, load
from ierf.store import PFVStore

concepts = typer.Typer(help="Concepts: directions in the feature vectors of a layer.", no_args_is_help=True)

Layers = Annotated[
    list[str] | None,
    typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help="May be repeated; default: all."),
]
Store = Annotated[
    Path | None, typer.Option("--store", "-s", metavar="STORE", help="Where the store lies now, if it was moved.")
]


@concepts.command()
def fit(
    store: Annotated[Path, typer.Option("--store", "-s", metavar="STORE", help="What `ierf collect` wrote.")],
    save: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The bank to write, or to finish.")],
    extractor: Annotated[
        str, typer.Option("--extractor", "-e", metavar="NAME", help="bisecting, dictionary, nmf, pca, sae_topk, …")
    ] = "bisecting",
    n_concepts: Annotated[
        int | None, typer.Option("--concepts", "-k", metavar="K", help="Of each layer; default: 8 for each channel.")
    ] = None,
    layer: Layers = None,
    seed: Annotated[int, typer.Option(help="Of the extractor and of the draws.")] = 0,
    l0_ratio: Annotated[
        float, typer.Option("--l0", metavar="R", help="Sparsity that λ is chosen for, 1 − ‖u‖₀/K.")
    ] = L0_RATIO,
    positive: Annotated[bool, typer.Option("--positive", help="Codes without negative coefficients.")] = False,
    encoded: Annotated[
        int, typer.Option(metavar="N", min=1, help="PFVs that are coded for frequencies and classes.")
    ] = 10_000,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="SPEC", help="For the names of classes; default: the store's."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Keep a crop of each exemplar, so that the bank needs no store.")
    ] = False,
    device: Device = "cpu",
) -> None:
    """Find the concepts of each layer, their exemplars, and how often they occur.

    A run that was killed goes on with the next layer when the same command is given again.

    Example:

        ierf concepts fit --store store.zarr --out bank
    """
    opened = PFVStore(store)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with _plain_warnings(), progress_bar(*columns) as bar:
        task = bar.add_task("opening", total=None)
        bank = ConceptBank.fit(
            opened,
            extractor,
            n_concepts,
            names_of(layer),
            seed,
            l0_ratio=l0_ratio,
            positive=positive,
            encoded=encoded,
            model=_named(opened, model),
            path=save,
            device=device,
            progress=lambda stage, *_: bar.update(task, description=stage),
        )
        if pictures:
            bar.update(task, description="keeping pictures")
            bank.keep_pictures()
    _print(bank)
    say_path(save)


@concepts.command()
def show(
    address: Annotated[str, typer.Argument(metavar="BANK", help="The folder of the bank, or hf:OWNER/NAME.")],
    layer: Layers = None,
    sort: Annotated[
        str | None, one_of("--sort", "frequency", "relevance", "random", help="Which concepts; default: frequency.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Concepts of each layer.")] = 60,
    seed: Annotated[int, typer.Option(help="Of a random choice.")] = 0,
    save: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = Path(
        "concepts.html"
    ),
    store: Store = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="SPEC", help="Compute iERFs anew, at full resolution.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """A page of concept cards: the ten nearest feature vectors as pictures, frequency, classes, neighbours."""
    from ierf.report.concepts import Order, save_concepts

    bank = ConceptBank.load(address, store)
    loaded = None if model is None else load(model, device)
    say_path(save_concepts(bank, save, names_of(layer), cast(Order, sort or "frequency"), limit, seed, loaded))


@concepts.command()
def compare(
    one: Annotated[str, typer.Argument(metavar="BANK_A", help="A bank.")],
    other: Annotated[str, typer.Argument(metavar="BANK_B", help="Another one.")],
    device: Device = "cpu",
) -> None:
    """Match the concepts of two banks one to one, and say how alike they are."""
    a, b = ConceptBank.load(one), ConceptBank.load(other)
    common = [name for name in a.layers if name in b.layers]
    if not common:
        raise IerfError(f"the banks have no layer in common: {', '.join(a.layers)} and {', '.join(b.layers)}")
    if a.plan.model["weights"] != b.plan.model["weights"]:
        say(f"two models: {a.plan.model['name']} and {b.plan.model['name']}", "yellow")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer", no_wrap=True)
    for heading in ("A", "B", "mean cosine", "median", f"≥ {ALIKE}", "by chance"):
        table.add_column(heading, justify="right")
    for name in common:
        first, second = a.layer(name), b.layer(name)
        found = match_concepts(first.atoms.to(device), second.atoms.to(device))
        figures = f"{found.mean:.3f}", f"{found.median:.3f}", f"{found.share_above(ALIKE):.1%}", f"{found.chance:.3f}"
        table.add_row(Text(name), str(len(first)), str(len(second)), *figures)
    out().print(table)


def _print(bank: ConceptBank) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer", no_wrap=True)
    for heading in ("PFVs", "concepts", "shift", "λ", "ℓ₀", "ℓ₀ ratio", "error"):
        table.add_column(heading, justify="right")
    for name in bank.layers:
        found = bank.layer(name)
        table.add_row(
            Text(name),
            str(found.rows),
            str(len(found)),
            found.shift_from,
            f"{found.lam:.3g}",
            f"{(1 - found.l0_ratio) * len(found):.1f}",
            f"{found.l0_ratio:.4f}",
            f"{found.relative_error:.3f}",
        )
    out().print(table)


def _named(store: PFVStore, model: str | None) -> VisionModel | None:
    """The model with the names of the classes: the one that was asked for, else the store's if it can be loaded."""
    if model is not None:
        return load(model)
    try:
        found = load(store.plan.model["name"])
        store.check_model(found)
    except IerfError:
        say("the store's model cannot be loaded, so classes go by number; --model names it", "yellow")
        return None
    return found


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Inside: a warning is one line on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
        yield
