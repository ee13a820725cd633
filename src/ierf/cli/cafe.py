"""`ierf cafe`: what the latents of sparse autoencoders respond to, and the pixels that drive them."""

from pathlib import Path
from typing import Annotated

import typer

from ierf.cli.app import (
    DEFAULT_MODEL,
    Device,
    Dtype,
    Model,
    names_of,
    one_of,
    progress_bar,
    save_picture,
    say_path,
    warn,
)
from ierf.errors import IerfError, UnknownNameError
from ierf.model import load


def cafe(
    sae: Annotated[Path, typer.Option("--sae", metavar="DIR", help="What `ierf sae train` wrote, or one autoencoder.")],
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="FOLDER|PARQUET|HF_DATASET", help="Photographs to look in.")
    ],
    model: Model = DEFAULT_MODEL,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", "-l", metavar="NAME[,NAME…]", help="May be repeated; default: all that have an autoencoder."
        ),
    ] = None,
    latent: Annotated[
        list[int] | None, typer.Option("--latent", metavar="K", help="May be repeated: a picture of these.")
    ] = None,
    token: Annotated[str | None, one_of("--token", "patch", "class", help="Where --latent is read.")] = None,
    sort: Annotated[
        str | None,
        one_of("--sort", "non-locality", "frequency", "selectivity", "random", help="Chooses the latents of the page."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Latents of each layer and kind of token on the page.")] = 40,
    pictures: Annotated[int, typer.Option(min=1, max=16, help="Photographs of each latent.")] = 5,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Default: attnlrp, srd without attention.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N photographs.")] = None,
    dtype: Dtype = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", hidden=True)] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="For the index, pictures, page.")] = Path(
        "ierf-latents"
    ),
) -> None:
    """The photographs that activate latents most: where each is active, and which pixels drive it.

    One pass over the photographs makes an index of all latents in OUT/index; a second command uses it again. Without
    --latent a page of latents, latents.html, to search and to sort.

    Examples:

        ierf cafe --model bundled:vit-tiny --sae saes --data photos/

        ierf cafe --model bundled:vit-tiny --sae saes --data photos/ --layer blocks.4 --token class --latent 12
    """
    from ierf.attribution import METHODS, usual_method
    from ierf.cafe import LatentLayer, build_index
    from ierf.concepts.sae import saved_autoencoders, trained_values
    from ierf.report.latents import latent_card, latents_sheet, save_latents
    from ierf.store import First, open_images

    if bfloat16:
        warn("--bfloat16 is called --dtype bfloat16 now")
        dtype = "bfloat16"
    vision_model = load(model, device)
    way = method or usual_method(vision_model)
    if way not in METHODS:
        raise UnknownNameError("method", way, METHODS)
    wanted = names_of(layers) or []
    found = saved_autoencoders(sae, wanted[0] if len(wanted) == 1 else None)
    saes = {name: one.to(device) for name, one in found.items()}
    photographs = open_images(data) if limit is None else First(open_images(data), limit)
    values = trained_values(saes)
    trained = {name: LatentLayer(vision_model, name, one, values) for name, one in saes.items()}
    for name in wanted:
        if name not in trained:
            raise IerfError(f"there is no autoencoder of {name!r} in {str(sae)!r}, but of {', '.join(trained)}")
    with progress_bar() as bar:
        task = bar.add_task("indexing", total=None)
        index = build_index(
            vision_model,
            saes,
            data,
            out / "index",
            values=values,
            limit=limit,
            dtype="bfloat16" if dtype == "bfloat16" else "float32",
            seed=seed,
            progress=lambda _, done, total: bar.update(task, completed=done, total=total),
        )
    shown = {name: trained[name] for name in wanted or trained}
    if latent is None:
        order = sort or "non-locality"
        path = save_latents(
            shown,
            index,
            photographs,
            out / "latents.html",
            order=order,  # type: ignore[arg-type]
            limit=count,
            count=pictures,
            method=way,
            seed=seed,
        )
        say_path(path)
        return
    if len(shown) > 1:
        raise IerfError(f"say which layer the latents belong to with --layer: {', '.join(shown)}")
    (name, of_layer), kind = next(iter(shown.items())), token or "patch"
    indexed = index.layer(name, kind)  # type: ignore[arg-type]
    if any(not 0 <= one < len(indexed) for one in latent):
        raise IerfError(f"latents are numbered from 0 to {len(indexed) - 1}; got {latent}")
    cards = [latent_card(of_layer, indexed, photographs, one, count=pictures, side=160, method=way) for one in latent]
    silent = [str(card.index) for card in cards if not card.pairs]
    if silent:
        raise IerfError(f"no photograph activates latent {', '.join(silent)} of {name!r} at {kind} tokens")
    path = out / f"{name}-{kind}-{'-'.join(map(str, latent[:8]))}.png"
    save_picture(latents_sheet(cards), path)
