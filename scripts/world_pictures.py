"""The pictures of the page about scenes whose concepts are known.

    python scripts/world_pictures.py

Pictures go to docs/images/.
"""

import math

import numpy as np
import torch
from gallery import IMAGES, Tile, save, sheet
from PIL import Image
from torch import Tensor

import ierf
from ierf.cafe import evidence, ierfs
from ierf.experiments.truth.latents import LatentSettings, named_latents, patches_of_parts, share_on
from ierf.report import cells, overlay
from ierf.world import (
    CLASSES,
    CUE_CLASS,
    HELD_OUT,
    Scene,
    Scenes,
    Settings,
    cue_mask,
    deciding_mask,
    other_mask,
    render,
)

LAYER, SIDE = "blocks.1", 144


def masks(scene: Scene) -> Image.Image:
    """Parts that decide in green, others in red, the tint in blue."""
    layers = np.stack([other_mask(scene), deciding_mask(scene), cue_mask(scene)], 2)
    return Image.fromarray(255 * layers.astype(np.uint8))


def scenes() -> None:
    """A scene of each class, the tint in one of them, and its masks."""
    tinted, plain = (Scenes(400, HELD_OUT, Settings(cue_class=name)) for name in (CUE_CLASS, None))
    rows: list[list[Image.Image]] = [[], []]
    for label, name in enumerate(CLASSES):
        data = tinted if name == CUE_CLASS else plain
        scene = next(scene for scene in map(data.scene, range(len(data))) if scene.label == label)
        rows[0].append(Image.fromarray(render(scene)))
        rows[1].append(masks(scene))
    size = 2 * rows[0][0].width
    page = Image.new("RGB", (size * len(CLASSES), 2 * size))
    for top, row in enumerate(rows):
        for left, picture in enumerate(row):
            page.paste(picture.resize((size, size), Image.Resampling.NEAREST), (left * size, top * size))
    save(page, "world.png")


def latents() -> None:
    """Of a latent of a class, read at the class token: where it is active, and where its evidence is."""
    model = ierf.load("bundled:world-vit")
    named = named_latents(model, LAYER, LatentSettings(), seed=0)
    layer, stands, data = named.layer, named.stands_for["class-token"], Scenes(200, HELD_OUT)
    rows = []
    for name in ("night", "purse", "cart"):
        label = list(CLASSES).index(name)
        scene = next(scene for scene in map(data.scene, range(len(data))) if scene.label == label)
        picture = Image.fromarray(render(scene))
        x = model.prepare(picture)
        codes = layer.of_kind(layer.codes(x), "class")[0, 0] * (stands == label)
        latent, at = codes.argmax()[None], torch.tensor([0])
        active, found = layer.maps(x, latent)[0], evidence(layer, x, latent, at)[0]
        rows.append(
            [
                Tile(picture, (f"“{name}”",)),
                Tile(masks(scene), ("parts",)),
                Tile(cells(picture, active.numpy()), (share(active, scene),)),
                Tile(cells(picture, found.detach().numpy()), (share(found, scene),)),
                Tile(overlay(picture, ierfs(layer, x, latent, at)[0].detach().numpy()), (f"latent {int(latent)}",)),
            ]
        )
    headings = ("scene", "truth", "active at", "CAFE, patches", "CAFE, pixels")
    save(sheet(rows, headings, SIDE), "world-latents.png")


def share(map: Tensor, scene: Scene) -> str:
    """Of the positive part of a map of patches, what lies on patches of the deciding parts."""
    _, on = patches_of_parts(scene, (map.shape[0], map.shape[1]))
    found = share_on(map.detach(), on[list(scene.deciding)])
    return "nowhere" if math.isnan(found) else f"{found:.0%} on the parts"


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    scenes()
    latents()
