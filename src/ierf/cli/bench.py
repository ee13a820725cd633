"""`ierf bench`: what explanations, concepts and latents cost, as ratios measured in the same run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from ierf.cli.app import Device, Model, names_of, out, say
from ierf.experiments import Cost, attnlrp_costs, collect_costs, srd_costs
from ierf.experiments.concept_costs import DATA, bisecting_costs, lasso_cost, lasso_costs, sae_costs, stored_case
from ierf.experiments.costs import icat_costs
from ierf.model import VisionModel, evaluating, load
from ierf.store import PFVStore

bench = typer.Typer(help="What explanations cost, as ratios to plain gradients of the same run.", no_args_is_help=True)


RESNET50 = [f"layer{stage}.{block}" for stage, blocks in enumerate((3, 4, 6, 3), 1) for block in range(blocks)]

Batch = Annotated[list[int] | None, typer.Option(help="Batch sizes; default: 1 and 8.")]
Rounds = Annotated[int, typer.Option(min=1, help="Runs of each; the median ratio counts.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")]


@bench.command()
def srd(
    model: Model = "timm:resnet50?weights=random",
    batch: Batch = None,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Sharing Ratio Decomposition and iERFs, against forward + gradient of the logit."""
    _show(model, device, threads, lambda loaded: srd_costs(loaded, batch or (1, 8), rounds))


@bench.command()
def attnlrp(
    model: Model = "timm:vit_base_patch16_224?weights=random",
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the iERFs of tokens start; '' for none.")
    ] = "blocks.11",
    batch: Batch = None,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """AttnLRP, CP-LRP and iERFs of tokens, against forward + gradient of the logit."""
    _show(model, device, threads, lambda loaded: attnlrp_costs(loaded, layer or None, batch or (1, 8), rounds))


@bench.command()
def collect(
    model: Model = "timm:resnet50?weights=random",
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", "-l", metavar="NAME[,NAME…]", help="Convolutional layers; default: a ResNet-50's 16 blocks."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 4,
    rounds: Rounds = 5,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """PFVs with iERFs at 56 × 56, against a forward pass and a gradient for each layer; each stage’s share."""
    names = names_of(layers) or RESNET50
    _show(model, device, threads, lambda loaded: collect_costs(loaded, names, batch, rounds=rounds))


@bench.command()
def bisecting(
    data: Annotated[list[str] | None, typer.Option(help="gaussian, mixture; default: both.")] = None,
    concepts: Annotated[list[int] | None, typer.Option(help="Numbers of concepts; default: 4096 and 8192.")] = None,
    vectors: Annotated[int, typer.Option(help="How many vectors.")] = 50_000,
    channels: Annotated[int, typer.Option(help="Their length.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each; the median time counts.")] = 3,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Bisecting spherical k-means, against scikit-learn's BisectingKMeans (largest cluster first)."""
    if threads is not None:
        torch.set_num_threads(threads)
    table = Table("data", "concepts", "seconds", "scikit-learn", "ratio", "mean cosine", "scikit-learn")
    table.title = f"{vectors} × {channels}, {torch.get_num_threads()} threads, {device}"
    with out().status("measuring"):
        for name in data or DATA:
            for cost in bisecting_costs(name, tuple(concepts or (4096, 8192)), vectors, channels, rounds, device):
                seconds = (f"{value:.2f}" for value in (cost.seconds, cost.peer_seconds, cost.ratio))
                cosines = (f"{value:.4f}" for value in (cost.cosine, cost.peer_cosine))
                table.add_row(name, str(cost.concepts), *seconds, *cosines)
    out().print(table)


@bench.command()
def icat(
    model: Model = "bundled:resnet18-tiny",
    source: Annotated[str, typer.Option(metavar="NAME", help="The earlier layer.")] = "layer2",
    target: Annotated[str, typer.Option(metavar="NAME", help="The later layer.")] = "layer3",
    targets: Annotated[int, typer.Option(min=1, help="Concepts of the later layer.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Of the loop.")] = 48,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Edges between two layers, against integrated gradients by U for one target at a time."""
    _show(
        model, device, threads, lambda loaded: icat_costs(loaded, source, target, targets, steps=steps, rounds=rounds)
    )


@bench.command()
def lasso(
    store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Real PFVs and their concepts; default: vectors like them.")
    ] = None,
    layer: Annotated[str, typer.Option(metavar="NAME", help="The layer of the store.")] = "layer4.1",
    active: Annotated[float, typer.Option(min=1, help="Coefficients that are not zero, in the mean.")] = 40,
    vectors: Annotated[int, typer.Option(min=1, help="Vectors in a run.")] = 512,
    peers: Annotated[int, typer.Option(min=1, help="Vectors in a run of scikit-learn.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each; the median counts.")] = 3,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """The Lasso of many vectors, against scikit-learn's coordinate descent with a Gram matrix, at 1e-3 λ.

    Vectors per second of this Lasso, of its peer, and of one look at all atoms; the largest violation of an optimality
    condition relative to λ of both; and how far the objective is above the best, relatively.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    table = Table(*"C|K|used|per s|peer|ratio|look|KKT|peer|above".split("|"))
    table.title = f"{store or 'generated'}, {torch.get_num_threads()} threads, {device}"
    with out().status("measuring"):
        if store is None:
            costs = lasso_costs(active=active, n=vectors, n_peer=peers, rounds=rounds, device=device)
        else:
            x, atoms = (part.to(device) for part in stored_case(PFVStore(store).layer(layer), vectors))
            costs = iter([lasso_cost(x, atoms, active, peers, rounds)])
        for cost in costs:
            speeds = f"{cost.rate:.0f}", f"{cost.peer_rate:.0f}", f"{cost.ratio:.1f}", f"{cost.floor:.0f}"
            quality = (f"{value:.0e}" for value in (cost.kkt, cost.peer_kkt, cost.objective))
            table.add_row(str(cost.channels), str(cost.atoms), f"{cost.active:.0f}", *speeds, *quality)
    out().print(table)


@bench.command()
def sae(
    channels: Annotated[int, typer.Option("--channels", "-C", min=1, help="Of the feature vectors.")] = 768,
    latents: Annotated[int, typer.Option("--latents", "-K", min=1, help="Of the autoencoder.")] = 6144,
    batch: Annotated[int, typer.Option(min=1, help="Feature vectors in a step.")] = 4096,
    k: Annotated[int, typer.Option("-k", min=1, help="Active latents.")] = 32,
    kind: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Default: topk.")] = None,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """A training step of a sparse autoencoder, against dense matrix products of its size."""
    if threads is not None:
        torch.set_num_threads(threads)
    title = f"{torch.get_num_threads()} threads, {device}"
    _print(title, sae_costs(channels, latents, batch, k, kind or ("topk",), rounds, device))


def _show(model: str, device: str, threads: int | None, measure: Callable[[VisionModel], Iterator[Cost]]) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(model, device)
    title = f"{loaded.name}, {' × '.join(map(str, loaded.preprocess.size))}, {torch.get_num_threads()} threads"
    with evaluating(loaded.net):
        _print(title, measure(loaded))


def _print(title: str, costs: Iterator[Cost]) -> None:
    table = Table("what", "as a ratio to", "median", "lowest", "highest")
    table.title = title
    with out().status("measuring"):
        for cost in costs:
            numbers = (f"{value:.3f}" for value in (cost.ratio, cost.lowest, cost.highest))
            table.add_row(cost.what, cost.peer, *numbers)
    out().print(table)


def cafe(
    sae: Annotated[Path, typer.Option("--sae", metavar="DIR", help="What `ierf sae train` wrote.")],
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="FOLDER|PARQUET|HF_DATASET", help="Photographs for the index.")
    ],
    model: Model = "bundled:vit-tiny",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Only the first N photographs.")] = 4096,
    batch: Batch = None,
    rounds: Rounds = 7,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """The iERF of a latent against forward + gradient, and an index of all latents against a forward pass."""
    from ierf.cafe import LatentLayer
    from ierf.concepts.sae import saved_autoencoders, trained_values
    from ierf.experiments.costs import cafe_costs
    from ierf.store import First, open_images

    if threads is not None:
        torch.set_num_threads(threads)
    vision_model, saes = load(model, device), saved_autoencoders(sae)
    values = trained_values(saes)
    layers = [LatentLayer(vision_model, name, found.to(device), values) for name, found in saes.items()]
    for cost in cafe_costs(vision_model, layers, First(open_images(data), limit), batch or (1, 16), rounds):
        say(f"{cost.what} / {cost.peer}: {cost.ratio:.2f} ({cost.lowest:.2f} – {cost.highest:.2f})")
