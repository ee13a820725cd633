"""`ierf collect`, PFVs and iERFs of a data set to a folder; `ierf store`, what is inside, whole, and seen."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ierf.cli.app import (
    DEFAULT_MODEL,
    Bias,
    Device,
    Dtype,
    Model,
    Unknown,
    complain,
    given,
    names_of,
    one_of,
    out,
    progress_bar,
    save_picture,
    say,
    say_path,
)
from ierf.errors import IerfError
from ierf.model import load
from ierf.store import Collected, PFVStore, Settings, Shard, contact_sheet, problems
from ierf.store import collect as collect_images


def collect(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="FOLDER|PARQUET|HF_DATASET",
            help="The photographs; hf:OWNER/NAME?split=… for a hub.",
        ),
    ],
    layers: Annotated[
        list[str],
        typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help="The layers to collect; may be repeated."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The store to write, or to finish.")],
    model: Model = DEFAULT_MODEL,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="srd, attnlrp or cp_lrp; default: attnlrp for transformers.")
    ] = None,
    bias: Bias = None,
    unknown: Unknown = None,
    sampling: Annotated[
        str | None,
        one_of("--sampling", "relevance", "uniform", "all", help="Which PFVs of an image; default: by relevance."),
    ] = None,
    per_image: Annotated[
        int | None, typer.Option(metavar="N", help="PFVs of each image and layer; default: 1.")
    ] = None,
    prefix_tokens: Annotated[
        bool, typer.Option("--prefix-tokens", help="Keep class and register tokens beside the patches.")
    ] = False,
    values: Annotated[
        str | None,
        one_of(
            "--values", "pre-activation", "output", help="PFVs before a layer’s last activation (default), or behind."
        ),
    ] = None,
    ierf: Annotated[bool, typer.Option("--ierf/--no-ierf", help="Keep iERFs, or compute them when asked for.")] = True,
    resolution: Annotated[
        int | None, typer.Option(metavar="SIDE", help="Side of the kept iERFs; default: 56 for 224 pixels.")
    ] = None,
    pfv_type: Annotated[
        str | None, one_of("--pfv-type", "float16", "float32", help="How PFVs are stored; default: float16.")
    ] = None,
    dtype: Dtype = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; default: 0.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images at once; default: 16.")] = None,
    block: Annotated[int | None, typer.Option(help="Images per chunk; default: 512.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Only the first N images.")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Put other images behind those of a complete store.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="i/n", help="One of n parts, from 0/n on; default: by rank under torchrun.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read photographs; default: up to 4.")] = None,
    device: Device = "cpu",
) -> None:
    """Collect feature vectors, with the pixels that caused them, from every photograph of a data set.

    A run that was killed goes on where it ended when the same command is given again. A photograph that cannot be read
    is named and skipped.

    Examples:

        ierf collect --data photos/ --layer layer2.1,layer3.1 --out store.zarr

        ierf collect --model timm:resnet50.a1_in1k --data val.parquet --layer layer3.5 --out store.zarr --device cuda

        torchrun --nproc-per-node 4 --no-python ierf collect --data photos/ --layer layer3.1 --out store.zarr
    """
    settings = Settings.of(
        options=given(bias=bias, unknown=unknown),
        prefix_tokens=prefix_tokens,
        ierf=ierf,
        **given(
            method=method,
            sampling=sampling,
            per_image=per_image,
            values=values,
            resolution=resolution,
            pfv_type=pfv_type,
            dtype=dtype,
            seed=seed,
            batch=batch,
            block=block,
        ),
    )
    names = names_of(layers) or []
    with progress_bar() as bar:
        task = bar.add_task("collecting", total=None)
        done = collect_images(
            load(model, _own_device(device)),
            data,
            names,
            out,
            settings,
            limit=limit,
            append=append,
            shard=None if shard is None else Shard.parse(shard),
            workers=workers,
            progress=lambda _, done, total: bar.update(task, completed=done, total=total),
        )
    _report(done, out)


def _own_device(device: str) -> str:
    """Under torchrun every process of a machine takes its own accelerator."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def _report(done: Collected, out: Path) -> None:
    for _, reason in done.skipped:
        complain(IerfError(f"{reason}; skipped"))
    total = sum(done.seconds.values())
    if done.images:
        shares = ", ".join(f"{stage} {spent / total:.0%}" for stage, spent in done.seconds.items())
        say(f"{done.images} images, {len(done.skipped)} skipped, {done.images / total:.1f} a second ({shares})")
    if done.missing:
        say(f"blocks left to other shards: {done.missing}")
    else:
        say("the store is complete")
    say_path(out)


store = typer.Typer(help="Look into a store that `ierf collect` wrote.", no_args_is_help=True)

TILE = 120
"""Side of a picture on a contact sheet, in pixels."""

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The folder of the store.")]


@store.command()
def info(path: StorePath) -> None:
    """What is inside: model, photographs, and the PFVs of each layer."""
    opened = PFVStore(path)
    plan = opened.plan
    model, sampling = plan.model, plan.sampling
    say(f"model      {model['name']}, weights {model['weights'][:12]}…, {plan.method}")
    for source in plan.sources:
        say(f"images     {source.count} of {source.address or 'a list in memory'}")
    if opened.skipped:
        say(f"skipped    {len(opened.skipped)}: {', '.join(name for name, _ in opened.skipped[:5])}")
    tokens = " and the tokens in front of the patches" if sampling.get("prefix_tokens") else ""
    say(f"sampling   {sampling['kind']}, {sampling['per_image']} per image and layer{tokens}, seed {sampling['seed']}")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer")
    for heading in ("PFVs", "channels", "map", "values", "iERFs"):
        table.add_column(heading, justify="right")
    for layer in plan.layers:
        size = "–" if layer.ierf_size is None else f"{' × '.join(map(str, layer.ierf_size))} {layer.ierf}"
        rows, shape = str(len(opened.layer(layer.name))), " × ".join(map(str, layer.map))
        table.add_row(Text(layer.name), rows, str(layer.channels), shape, layer.values, size)
    out().print(table)


@store.command()
def verify(path: StorePath) -> None:
    """Read every file and compare it with its checksum. The exit status is 1 if anything is wrong."""
    found = list(problems(path))
    for problem in found:
        say(problem, "red")
    say("whole" if not found else f"{len(found)} problems", "red" if found else "green")
    raise typer.Exit(1 if found else 0)


@store.command()
def show(
    path: StorePath,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help="May be repeated; default: all."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pairs of each layer.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    save: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The picture to write.")] = Path("pfvs.png"),
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="SPEC", help="Compute iERFs anew, at full resolution.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """A contact sheet of random PFVs: each photograph lit by its iERF, the PFV’s cell framed; below, what it covers."""
    opened = PFVStore(path)
    loaded = None if model is None else load(model, device)
    random = np.random.default_rng(seed)
    rows = []
    for name in names_of(layer) or opened.layers:
        of_layer = opened.layer(name)
        chosen = sorted(random.choice(len(of_layer), min(count, len(of_layer)), replace=False).tolist())
        rows.append((name, [of_layer.pictures(row, loaded, TILE) for row in chosen]))
    if not any(pairs for _, pairs in rows):
        raise IerfError(f"the store {str(path)!r} holds no PFVs: all of its images were skipped")
    sheet = contact_sheet(rows, TILE)
    save_picture(sheet, save)
