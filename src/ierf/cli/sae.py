"""`ierf sae`: train sparse autoencoders on a layer's feature vectors, measure them, look at them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ierf.cli.app import (
    DEFAULT_MODEL,
    Device,
    Dtype,
    Model,
    complain,
    given,
    names_of,
    one_of,
    out,
    progress_bar,
    save_picture,
    say,
    say_path,
    shown_on,
)
from ierf.concepts.sae import (
    CHECKPOINT,
    SAE,
    FromModel,
    FromStore,
    Source,
    Training,
    saved_autoencoders,
    train,
    trained_values,
)
from ierf.errors import IerfError
from ierf.model import load
from ierf.store import PFVStore
from ierf.store.files import write_json

sae = typer.Typer(help="Sparse autoencoders: latents of a layer’s feature vectors.", no_args_is_help=True)


Data = Annotated[
    str | None,
    typer.Option("--data", "-d", metavar="FOLDER|PARQUET|HF_DATASET", help="Photographs that the model runs over."),
]
Values = Annotated[
    str | None,
    one_of("--values", "pre-activation", "output", help="Before a layer’s last activation (default), or behind."),
]
Saved = Annotated[Path, typer.Argument(metavar="DIR", help="What `ierf sae train` wrote, or one autoencoder of it.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N photographs.")]


@sae.command("train")
def train_command(
    layers: Annotated[
        list[str],
        typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help="One autoencoder each; may be repeated."),
    ],
    save: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write, or to go on.")],
    data: Data = None,
    store: Annotated[
        Path | None, typer.Option("--store", "-s", metavar="STORE", help="Or PFVs that `ierf collect` wrote.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="topk, batchtopk, matryoshka, jumprelu, gated or l1.")
    ] = "topk",
    latents: Annotated[
        int | None, typer.Option("--latents", "-K", metavar="K", help="Of each layer; default: 8 per channel.")
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", help="Active latents per feature vector.")] = 32,
    lam: Annotated[float | None, typer.Option(metavar="λ", help="Penalty of l1, gated and jumprelu.")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="PFVs to see in all; default: 1000000.")] = None,
    batch: Annotated[int | None, typer.Option(metavar="N", help="PFVs per step and process; default: 1024.")] = None,
    lr: Annotated[float | None, typer.Option(help="Default: 2e-4 / √(K / 16384).")] = None,
    schedule: Annotated[
        str | None, one_of("--schedule", "cosine", "constant", help="Of the learning rate; default: cosine.")
    ] = None,
    buffer: Annotated[int | None, typer.Option(metavar="N", help="PFVs that are mixed; default: 131072.")] = None,
    per_image: Annotated[
        int | None, typer.Option(metavar="N", help="Positions of each photograph; default: all that every layer has.")
    ] = None,
    values: Values = None,
    dtype: Dtype = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and positions.")] = 0,
    limit: Limit = None,
    save_every: Annotated[int, typer.Option(metavar="STEPS", min=1, help="Steps between checkpoints.")] = 500,
    device: Device = "cpu",
) -> None:
    """Train an autoencoder for each layer, all of them from the same forward passes.

    A run that was killed goes on from its last checkpoint when the same command is given again.

    Examples:

        ierf sae train --data photos/ --layer layer3.1 --kind matryoshka --out saes/

        ierf sae train --model bundled:vit-tiny --data photos/ --layer blocks.2,blocks.4 -k 16 --out saes/

        torchrun --nproc-per-node 2 --no-python ierf sae train --data photos/ --layer layer3.1 --out saes/
    """
    settings = Training(
        seed=seed,
        **given(samples=samples, batch=batch, lr=lr, schedule=schedule, buffer=buffer, dtype=dtype),
    )
    names = names_of(layers) or []
    with _processes(device) as here:
        source: Source
        if (data is None) == (store is None):
            raise IerfError("say where the feature vectors come from: --data PHOTOGRAPHS or --store STORE")
        if store is not None:
            source = FromStore(PFVStore(store), names, seed, here)
        else:
            assert data is not None
            source = FromModel(
                load(model, here),
                data,
                names,
                seed=seed,
                limit=limit,
                dtype=settings.dtype,
                **given(per_image=per_image, values=values),
            )
        origin: dict[str, Any] = source.identity
        saes = {}
        for name, channels in source.channels.items():
            made = SAE(kind, channels, latents or 8 * channels, k, seed=seed, training=settings, **given(lam=lam))
            before = origin["values"] if isinstance(origin["values"], str) else origin["values"][name]
            made.about = {
                "model": origin["model"],
                "weights": origin["weights"],
                "layer": name,
                "values": before,
            }
            saes[name] = made.to(here)
        _train(saes, source, settings, save, save_every)
        if int(os.environ.get("RANK", 0)) == 0:
            for name, trained in saes.items():
                trained.save(save / name)
            say_path(save)
    if isinstance(source, FromModel):
        for reason in source.skipped.values():
            complain(IerfError(f"{reason}; skipped"))


@sae.command()
def evaluate(
    path: Saved,
    data: Annotated[
        str,
        typer.Option("--data", "-d", metavar="FOLDER|PARQUET|HF_DATASET", help="Photographs not seen in training."),
    ],
    model: Model = DEFAULT_MODEL,
    values: Values = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Loss to the photographs’ labels; default: to the predicted classes.")
    ] = False,
    limit: Limit = None,
    save: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also write the numbers as JSON.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Variance explained, sparsity, dead latents, and how much of the model’s loss the reconstruction recovers.

    Loss is that of the untouched model; patched: with reconstructions in place of the layer; empty: with the decoder’s
    bias alone; recovered: how much of that damage codes undo; same: share of photographs that keep their class.
    """
    from ierf.experiments.sae import evaluate_saes

    saes = {layer: found.to(device) for layer, found in saved_autoencoders(path).items()}
    with progress_bar() as bar:
        found = evaluate_saes(
            load(model, device),
            saes,
            data,
            labels=labels,
            limit=limit,
            progress=shown_on(bar, "evaluating"),
            values=trained_values(saes, values),
        )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer")
    for heading in ("FVU", "L0", "dead", "loss", "patched", "empty", "recovered", "same"):
        table.add_column(heading, justify="right")
    for layer, one in found.items():
        losses = (f"{value:.3f}" for value in (one.loss, one.loss_patched, one.loss_empty))
        numbers = (f"{one.fvu:.3f}", f"{one.l0:.1f}", f"{one.dead:.1%}", *losses)
        table.add_row(Text(layer), *numbers, f"{one.recovered:.1%}", f"{one.agreement:.1%}")
    out().print(table)
    if save is not None:
        numbers_of = {
            layer: {**asdict(one), "recovered": one.recovered, "recovered_from_zero": one.recovered_from_zero}
            for layer, one in found.items()
        }
        write_json(save, numbers_of)
        say_path(save)


@sae.command()
def show(
    path: Saved,
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="FOLDER|PARQUET|HF_DATASET", help="Photographs to look in.")
    ],
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the only one.")] = None,
    latent: Annotated[list[int] | None, typer.Option(metavar="N", help="A latent; default: ten at random.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Photographs of each latent.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    save: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The picture to write.")] = Path(
        "latents.png"
    ),
    model: Model = DEFAULT_MODEL,
    values: Values = None,
    limit: Limit = None,
    device: Device = "cpu",
) -> None:
    """A contact sheet of the patches that activate latents most, each in its photograph and with its surroundings."""
    from ierf.experiments.sae import drawn_latents, latent_sheet, strongest

    saes = saved_autoencoders(path)
    if layer is None and len(saes) > 1:
        raise IerfError(f"say which layer: {', '.join(saes)}")
    name = layer or next(iter(saes))
    if name not in saes:
        raise IerfError(f"there is no autoencoder of {name!r} in {str(path)!r}, but of {', '.join(saes)}")
    loaded = load(model, device)
    found = strongest(
        loaded,
        saes[name].to(device),
        name,
        data,
        count=count,
        limit=limit,
        values=trained_values({name: saes[name]}, values),
    )
    chosen = latent or drawn_latents(found, 10, seed)
    if any(not 0 <= one < saes[name].n_latents for one in chosen):
        raise IerfError(f"latents are numbered from 0 to {saes[name].n_latents - 1}; got {chosen}")
    sheet = latent_sheet(loaded, found, data, chosen)
    save_picture(sheet, save)


def _train(saes: dict[str, SAE], source: Source, settings: Training, folder: Path, save_every: int) -> None:
    with progress_bar(hidden=int(os.environ.get("RANK", 0)) > 0) as bar:
        try:
            history = train(saes, source, settings, folder, save_every=save_every, progress=shown_on(bar, "training"))
        except KeyboardInterrupt:
            kept = (folder / CHECKPOINT).exists()
            complain(
                f"interrupted; the last checkpoint is in {str(folder)!r}, and the same command goes on from it"
                if kept
                else "interrupted before the first checkpoint; the same command begins anew"
            )
            raise
    if int(os.environ.get("RANK", 0)) == 0:
        write_json(folder / "history.json", history)
        last = history[-1]
        for name in saes:
            one = last[name]
            say(f"{name}: FVU {one['fvu']:.4f}, L0 {one['l0']:.1f}, dead {one['dead']:.1%} after {last['step']} steps")


@contextmanager
def _processes(device: str) -> Iterator[str]:
    """All processes of torchrun together, where it runs; this one's device. They talk by what that device needs."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    kind, own = torch.device(device).type, device
    if kind == "cuda":
        own = device if ":" in device else f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(own)
    torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield own
    finally:
        torch.distributed.destroy_process_group()
