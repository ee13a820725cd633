"""`ierf evaluate cafe`: Fig. 7, which attribution finds what drives a latent."""

from pathlib import Path
from typing import Annotated

import typer

from ierf.cli.evaluate import Folder, Seed, tracked
from ierf.cli.evaluate_concepts import names_of, show_all
from ierf.cli.options import DEFAULT_MODEL, Device, Model
from ierf.errors import UnknownNameError
from ierf.experiments.concepts.cafe import DEFAULT, CafeSettings
from ierf.experiments.concepts.cafe import cafe as run_cafe
from ierf.experiments.tables import check_out
from ierf.model import load


def cafe(
    index: Annotated[Path, typer.Option("--index", metavar="DIR", help="What `ierf cafe` left in its folder.")],
    sae: Annotated[Path, typer.Option("--sae", metavar="DIR", help="What `ierf sae train` wrote.")],
    model: Model = DEFAULT_MODEL,
    data: Annotated[
        str | None, typer.Option("--data", "-d", metavar="SPEC", help="Default: what the index was made of.")
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", "-l", metavar="NAME[,NAME…]", help="Default: all of the index.")
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option(metavar="NAME[,NAME…]", help=f"Default: {', '.join(DEFAULT)}.")
    ] = None,
    latents: Annotated[
        int, typer.Option(min=1, help="Of each layer and kind of token, drawn by the seed.")
    ] = CafeSettings.latents,
    images: Annotated[int, typer.Option(min=1, help="Photographs of each latent.")] = CafeSettings.images,
    points: Annotated[int, typer.Option(min=2, help="Of a curve, at most.")] = CafeSettings.points,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-cafe-curves"),
) -> None:
    """Fig. 7: patches appear in the order of each attribution; how soon is the latent's activation back?

    Areas of insertion and deletion for each layer, at patches and at the class token; for latents whose activation is
    spread little and much; and how non-local latents are. Intervals are over latents.

    Example:

        ierf evaluate cafe --model bundled:vit-tiny --sae saes --index latents/index --latents 20 --images 2
    """
    from ierf.cafe import LatentIndex
    from ierf.concepts.sae import saved_autoencoders
    from ierf.store import open_images

    settings = CafeSettings(
        tuple(names_of(methods) or DEFAULT), latents=latents, images=images, points=points, seed=seed
    )
    opened, found = LatentIndex.open(index), saved_autoencoders(sae)
    wanted = names_of(layers) or [name for name in found if name in opened.settings["layers"]]
    for name in wanted:
        if name not in found:
            raise UnknownNameError("layer with an autoencoder", name, found)
    saes = {name: found[name].to(device) for name in wanted}
    photographs = open_images(data or opened.settings["data"])
    check_out(out)
    with tracked() as track:
        results = run_cafe(load(model, device), saes, opened, photographs, out, settings, track=track)
    show_all(results, out)
