"""Every picture of the documentation and of the README, and the numbers that stand beside them.

    python scripts/gallery.py

The photographs come with scikit-image (`pip install 'ierf[demo]'`), the network with ierf: nothing is downloaded.
Pictures go to docs/images/, numbers to standard output.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import ierf
from ierf.report import PFVField, best_classes, cells, on_grid, overlay, percent, spotlight

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MODEL = "bundled:resnet18-tiny"
TRANSFORMER = "bundled:vit-tiny"
MOST_BYTES = 150_000
CORNER = 3
"""Side of the squares in the corners of a 64-pixel map whose share is printed."""
INK, GREY = "#1b1f24", "#5a626b"

KNOWN = ("chelsea", "coffee")
"""Photographs of one of the network's classes."""
STRANGERS = ("rocket", "motorcycle", "gravel", "hubble_deep_field", "astronaut", "camera")
"""Photographs of none of them."""

Box = tuple[int, int, int, int]


class Tile(NamedTuple):
    """A picture with lines of text below it; the first is darker."""

    picture: Image.Image
    lines: tuple[str, ...] = ()


def photograph(name: str) -> Image.Image:
    pixels = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    return Image.fromarray(pixels).convert("RGB")


def pasted(size: int, *parts: tuple[str, Box, Box]) -> Image.Image:
    """Parts of photographs in one square frame: (name, box in the photograph, box in the frame)."""
    frame = Image.new("RGB", (size, size))
    for name, source, target in parts:
        left, top, right, bottom = target
        frame.paste(photograph(name).crop(source).resize((right - left, bottom - top)), (left, top))
    return frame


def cat_beside_cup() -> Image.Image:
    return pasted(
        600,
        ("chelsea", (80, 0, 230, 300), (0, 0, 300, 600)),
        ("coffee", (200, 0, 400, 400), (300, 0, 600, 600)),
    )


def cat_above_motorcycle() -> Image.Image:
    return pasted(
        600,
        ("chelsea", (0, 40, 451, 265), (0, 0, 600, 300)),
        ("motorcycle", (0, 100, 741, 470), (0, 300, 600, 600)),
    )


def sheet(rows: Sequence[Sequence[Tile | None]], headings: Sequence[str], side: int, text: int = 15) -> Image.Image:
    """Tiles in rows on white, each `side` pixels wide, under column headings; an empty heading joins the one before."""
    gap, line = max(6, side // 30), round(1.35 * text)
    columns = len(headings)
    top = line + gap
    heights = [side + line * max(len(tile.lines) for tile in row if tile) + 2 * gap for row in rows]
    page = Image.new("RGB", (columns * (side + gap) + gap, top + sum(heights)), "white")
    draw, font, bold = ImageDraw.Draw(page), ImageFont.load_default(text), ImageFont.load_default(text + 1)
    for column, heading in enumerate(headings):
        if heading:
            span = 1 + next((i for i, h in enumerate(headings[column + 1 :]) if h), columns - column - 1)
            left = gap + column * (side + gap)
            middle, right = left + (span * (side + gap) - gap) / 2, left + span * (side + gap) - gap
            draw.text((middle, gap), heading, INK, bold, anchor="ma")
            draw.line((left, top - 1, right, top - 1), "#c3c9d0")
    y = top + gap // 2
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            if tile is None:
                continue
            x = gap + column * (side + gap)
            page.paste(tile.picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
            for i, words in enumerate(tile.lines):
                draw.text((x, y + side + 2 + i * line), words, GREY if i else INK, font)
        y += height
    return page


def save(page: Image.Image, name: str) -> None:
    """In as many colours (PNG), or as fine (WebP), as `MOST_BYTES` allow."""
    path = IMAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for steps in range(8):
        buffer = BytesIO()
        if path.suffix == ".png":
            palette = page.quantize(round(256 * 0.75**steps), Image.Quantize.MAXCOVERAGE, kmeans=3)
            page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(buffer, "PNG", optimize=True)
        else:
            page.save(buffer, "WEBP", quality=90 - 6 * steps, method=6)
        if buffer.tell() <= MOST_BYTES:
            path.write_bytes(buffer.getvalue())
            print(f"{name}: {page.width} x {page.height}, {buffer.tell() / 1000:.0f} kB")
            return
    raise SystemExit(f"{name} does not fit into {MOST_BYTES} bytes")


def evidence(explanation: ierf.Explanation, class_index: int, resolution: str) -> Image.Image:
    return overlay(explanation.scene, grid(explanation, explanation.maps[class_index][resolution]))


def grid(explanation: ierf.Explanation, values: Tensor) -> np.ndarray:
    return on_grid(values, explanation.photo.size[::-1])


def pair(explanation: ierf.Explanation, field: PFVField) -> tuple[Image.Image, Image.Image]:
    """Where a PFV is, and the pixels that caused it; the rest is less dim than in a report, for these are small."""
    light = grid(explanation, field.ierf)
    where = spotlight(explanation.scene, np.ones_like(light), field.cell, field.cells)
    return where, Image.blend(spotlight(explanation.scene, light, field.cell, field.cells), where, 0.2)


def strongest(explanation: ierf.Explanation) -> dict[str, PFVField]:
    """Of each layer the PFV that is worth most to the class."""
    fields: dict[str, PFVField] = {}
    for field in explanation.fields:
        fields.setdefault(field.layer, field)
    return fields


def pixels_for_half(values: Tensor) -> int:
    """The smallest number of cells that hold half of Σ|R|."""
    sizes = values.abs().flatten().double().sort(descending=True).values.cumsum(0)
    return int((sizes < sizes[-1] / 2).sum()) + 1


def top_lines(explanation: ierf.Explanation, count: int) -> tuple[str, ...]:
    return tuple(f"{p.label} {100 * p.probability:.0f} %" for p in explanation.top[:count])


def readme(model: ierf.VisionModel) -> None:
    """The evidence for two photographs' classes at three resolutions, and the iERFs of two PFVs of each."""
    rows = []
    for name in KNOWN:
        explanation = ierf.explain(model, photograph(name), n_classes=1)
        best, fields = explanation.top[0], strongest(explanation)
        row = [Tile(explanation.scene, (f"{best.label}, {100 * best.probability:.0f} %",))]
        for resolution, values in explanation.maps[best.class_index].items():
            row.append(Tile(evidence(explanation, best.class_index, resolution), (" x ".join(map(str, values.shape)),)))
        for layer in ("layer3", "layer4"):
            row.append(Tile(pair(explanation, fields[layer])[1], (f"{layer}, {fields[layer].position}",)))
        rows.append(row)
    headings = ("photograph", "evidence: low", "high", "input", "the pixels behind a feature", "")
    save(sheet(rows, headings, 156, 15), "readme.png")


def classes(model: ierf.VisionModel) -> None:
    """Two classes in one frame, at two resolutions, and their difference."""
    rows = []
    frames = (cat_beside_cup(), ("tabby", "espresso")), (cat_above_motorcycle(), ("tabby", "sports car"))
    for picture, names in frames:
        explanation = ierf.explain(model, picture, names)
        first, second = explanation.classes
        tiles = [Tile(explanation.scene)]
        for prediction in (first, second):
            for resolution in ("low", "input"):
                words = (f"{prediction.label}, {resolution}", f"probability {100 * prediction.probability:.1f} %")
                tiles.append(Tile(evidence(explanation, prediction.class_index, resolution), words))
        target = difference(first.class_index, second.class_index)
        signed = ierf.attribute(model, model.prepare(picture), target, head="raw")[0]
        words = (f"{first.label} (warm) or", f"{second.label} (cool)")
        tiles.append(Tile(overlay(explanation.scene, grid(explanation, signed)), words))
        rows.append(tiles)
    save(sheet(rows, ("two photographs", "one class", "", "the other", "", "difference"), 215, 21), "classes.webp")


def difference(first: int, second: int) -> Callable[[Tensor], Tensor]:
    return lambda y: y[:, first] - y[:, second]


def biases(model: ierf.VisionModel) -> None:
    """norm, uniform and drop on the same photographs, cell by cell."""
    rocket = photograph("rocket")
    sky = rocket.crop((427, 0, 640, 213))
    rows = []
    for name, picture in (("chelsea", photograph("chelsea")), ("rocket", rocket), ("rocket, upper right", sky)):
        scene, x = ierf.explain(model, picture, n_classes=1).scene, model.prepare(picture)
        tiles = [Tile(scene, (name,))]
        for bias in ("norm", "uniform", "drop"):
            values, account = ierf.attribute(model, x, bias=bias)[0], ierf.check_conservation(model, x, bias=bias)
            arrived, pixels = account.relevance_out / account.relevance_in, pixels_for_half(values)
            print(
                f"{name}, {bias}: {percent(arrived)} arrives; half of |R| on {pixels} of {values.numel()} pixels, "
                f"{percent(negative_share(values))} of |R| negative, {percent(corner_share(values))} in the corners"
            )
            tiles.append(Tile(cells(scene, values.numpy()), (f"{100 * arrived:.0f} % arrives", f"half on {pixels} px")))
        rows.append(tiles)
    print(f"the corners are {percent(4 * CORNER**2 / values.numel())} of the pixels")
    save(sheet(rows, ("photograph", "norm", "uniform", "drop"), 300, 22), "bias.webp")


class Dense(torch.nn.Module):
    """The bundled network with its linear layer at every position: logits (N, T, h, w)."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(*list(net.children())[:-2])
        self.head = net.fc

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).movedim(1, -1)).movedim(-1, 1)
        return logits


def dense(model: ierf.VisionModel) -> None:
    """One position of a dense output is explained by what it sees."""
    preprocess = replace(model.preprocess, size=(128, 128), resize=128)
    wide = ierf.VisionModel(Dense(model.net), preprocess, model.labels)
    picture = cat_beside_cup()
    scene, x = preprocess.view(picture), wide.prepare(picture)
    tiles = [Tile(scene, ("the picture",))]
    for name, position in (("tabby", (3, 2)), ("espresso", (5, 6))):
        target = logit_at(wide.class_index(name), position)
        values = ierf.attribute(wide, x, target)[0]
        left = float(values[:, :64].abs().sum() / values.abs().sum())
        print(f"dense output, {name} at {position}: {percent(left)} of |R| in the left half")
        tiles.append(Tile(overlay(scene, values.numpy()), (f"{name} at row {position[0]}, column {position[1]}",)))
    save(sheet([tiles], ("", "", ""), 300, 22), "dense.webp")


def logit_at(index: int, position: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    return lambda y: y[:, index, position[0], position[1]]


def negative_share(values: Tensor) -> float:
    return float(-values.clamp_max(0).sum() / values.abs().sum())


def corner_share(values: Tensor) -> float:
    sides = (slice(None, CORNER), slice(-CORNER, None))
    return float(sum(values[rows, columns].abs().sum() for rows in sides for columns in sides) / values.abs().sum())


def ierfs(model: ierf.VisionModel) -> None:
    """At three depths the PFV that is worth most to the class, and its iERF."""
    rows = []
    for name in ("chelsea", "coffee", "rocket"):
        explanation = ierf.explain(model, photograph(name), n_classes=1)
        tiles: list[Tile] = []
        for field in strongest(explanation).values():
            where, lit = pair(explanation, field)
            size = " x ".join(map(str, field.map_shape))
            tiles.append(Tile(where, (f"{field.position} of {size}", f"{percent(field.share)} of evidence")))
            tiles.append(Tile(lit, ("its iERF", f"half on {pixels_for_half(field.ierf)} px")))
        rows.append(tiles)
    headings = [h for layer in strongest(explanation) for h in (layer, "")]
    save(sheet(rows, headings, 215, 21), "ierfs.webp")


def strangers(model: ierf.VisionModel, names: Sequence[str], file: str) -> None:
    """The most probable classes of each photograph, and the evidence for the first."""
    rows = []
    for name in names:
        explanation = ierf.explain(model, photograph(name), n_classes=1)
        index = explanation.top[0].class_index
        tiles = [Tile(explanation.scene, top_lines(explanation, 3))]
        for resolution in ("low", "high", "input"):
            words = (f"sum {float(explanation.maps[index][resolution].double().sum()):.2f}",)
            tiles.append(Tile(evidence(explanation, index, resolution), words))
        rows.append(tiles)
    save(sheet(rows, ("photograph", "low", "high", "input"), 260, 18), file)


def transformer(model: ierf.VisionModel) -> None:
    """The evidence by three methods, and the patches behind the class token at two depths."""
    methods = {"AttnLRP": "attnlrp", "CP-LRP": "cp_lrp", "gradient x input": "gradient_x_input"}
    rows = []
    for name in KNOWN:
        explanation = ierf.explain(model, photograph(name), n_classes=1)
        scene, best, x = explanation.scene, explanation.top[0], model.prepare(photograph(name))
        row = [Tile(scene, (f"{best.label}, {100 * best.probability:.0f} %",))]
        for method in methods.values():
            values = ierf.attribute(model, x, best.class_index, method)[0]
            row.append(Tile(overlay(scene, values.numpy()), (f"sum {float(values.sum()):.2f}",)))
        for layer in ("blocks.2", "blocks.5"):
            patches = ierf.effective_receptive_fields(model, x, layer, [0], resolution="patch")[0, 0]
            lit = spotlight(scene, patches.numpy(), None, (patches.shape[0], patches.shape[1]))
            row.append(Tile(lit, (f"{layer}",)))
        rows.append(row)
    headings = ("photograph", *methods, "the patches behind the class token", "")
    save(sheet(rows, headings, 156, 15), "transformer.png")


def predictions(model: ierf.VisionModel, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        explanation = ierf.explain(model, photograph(name), n_classes=1)
        yield f"{name}: {best_classes(explanation, 5).split(': ', 1)[1]}"


def checkerboard(model: ierf.VisionModel, names: Sequence[str]) -> None:
    """How the relevance of `high` is divided among even and odd rows and columns, as multiples of the mean."""
    maps = [ierf.attribute(model, model.prepare(photograph(name)), resolution="high")[0].abs() for name in names]
    sizes = torch.stack(maps).mean(0)
    parity = ("even", "odd")
    parts = [
        f"{parity[i]}/{parity[j]} {float(sizes[i::2, j::2].mean() / sizes.mean()):.2f}" for i in (0, 1) for j in (0, 1)
    ]
    print(f"|R| at high, by row/column, in means: {', '.join(parts)}")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    model = ierf.load(MODEL)
    readme(model)
    classes(model)
    biases(model)
    dense(model)
    ierfs(model)
    strangers(model, KNOWN, "resolutions.webp")
    strangers(model, STRANGERS[:3], "strangers-1.webp")
    strangers(model, STRANGERS[3:], "strangers-2.webp")
    transformer(ierf.load(TRANSFORMER))
    for line in predictions(model, KNOWN + STRANGERS):
        print(line)
    checkerboard(model, KNOWN + STRANGERS)


if __name__ == "__main__":
    main()
