import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ierf.errors import IerfError
from ierf.model import find_images, read_image

RED, GREEN = (250, 10, 20), (10, 200, 30)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> None:
    warnings.simplefilter("error")


def _pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image)


def _photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_rgb(tmp_path: Path) -> None:
    Image.fromarray(_photo()).save(tmp_path / "a.png", icc_profile=b"profile", dpi=(72, 72))
    assert np.array_equal(_pixels(tmp_path / "a.png"), _photo())


@pytest.mark.parametrize(("name", "mode"), [("a.png", "L"), ("a.jpg", "L"), ("a.png", "1"), ("a.tif", "L")])
def test_grey(tmp_path: Path, name: str, mode: str) -> None:
    Image.new("L", (5, 4), 255).convert(mode).save(tmp_path / name)
    assert (_pixels(tmp_path / name) == 255).all()
    assert _pixels(tmp_path / name).shape == (4, 5, 3)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(_pixels(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    image.convert(mode).save(tmp_path / "a.tif") if mode == "PA" else image.convert(mode).save(tmp_path / "a.png")
    pixels = _pixels(tmp_path / ("a.tif" if mode == "PA" else "a.png"))
    assert pixels[0, :3, 0].tolist() == [255, 127, 0]


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=b"\x00\xff")
    assert _pixels(tmp_path / "plain.png").tolist() == [[list(RED), list(GREEN)]]
    assert _pixels(tmp_path / "clear.png").tolist() == [[[255, 255, 255], list(GREEN)]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / name)
    assert _pixels(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([0, 0.5, 1]), [0, 128, 255]),
        (np.array([0, 128, 255.0]), [0, 128, 255]),
        (np.array([-1, 0, 1.0]), [0, 128, 255]),
        (np.array([np.nan, 0.5, 1]), [128, 128, 255]),
        (np.array([0, 32896, 65535]), [0, 128, 255]),
        (np.array([-10, 0, 10]), [0, 128, 255]),
    ],
)
def test_32_bit_grey(tmp_path: Path, values: np.ndarray, grey: list[int]) -> None:
    deep = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
    Image.fromarray(deep[None]).save(tmp_path / "a.tif")
    got = _pixels(tmp_path / "a.tif")[0, :, 0].tolist()
    assert got[1:] == grey[1:]
    assert np.isnan(values[0]) or got[0] == grey[0]


def test_one_pixel_and_a_panorama(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), RED).save(tmp_path / "one.png")
    Image.new("RGB", (20_000, 10), RED).save(tmp_path / "wide.png")
    assert _pixels(tmp_path / "one.png").tolist() == [[list(RED)]]
    assert _pixels(tmp_path / "wide.png").shape == (10, 20_000, 3)


def test_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert _pixels(tmp_path / "a.gif")[0, 0].tolist() == list(RED)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_upright(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_photo()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(_pixels(tmp_path / "a.png"), np.rot90(_photo(), turns))


def test_upright_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20), RED).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (20, 30)


@pytest.mark.parametrize("garbage", [b"Exif\x00\x00garbage", b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\xff\xff\x01"])
def test_a_broken_exif_block_does_no_harm(tmp_path: Path, garbage: bytes) -> None:
    Image.new("RGB", (30, 20), RED).save(tmp_path / "a.jpg", exif=garbage)
    assert read_image(tmp_path / "a.jpg").size == (30, 20)


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(b) - 4) + b + struct.pack(">I", zlib.crc32(b)) for b in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _truncated(suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(_photo(), (10, 10, 1))).save(buffer, suffix)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"just a text\n", "not an image"),
        (_truncated("JPEG"), "cut short"),
        (_truncated("PNG"), "cut short"),
        (_truncated("WEBP"), "damaged|cut short|not an image"),
        (_png_header(30_000, 20_000), "600 megapixels exceed the limit of 512"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not an image|damaged"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(IerfError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert limit == Image.MAX_IMAGE_PIXELS


def test_more_pixels_than_pillow_likes_are_fine(tmp_path: Path) -> None:
    Image.MAX_IMAGE_PIXELS, limit = 1000, Image.MAX_IMAGE_PIXELS
    try:
        Image.new("RGB", (100, 100), RED).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").size == (100, 100)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def test_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "chelsea.jpg").touch()
    with pytest.raises(IerfError, match="it is a folder"):
        read_image(tmp_path)
    with pytest.raises(IerfError, match=r"did you mean chelsea\.jpg"):
        read_image(tmp_path / "chelsey.jpg")
    with pytest.raises(IerfError, match="its folder does not exist"):
        read_image(tmp_path / "no" / "chelsea.jpg")


def test_find_images(tmp_path: Path) -> None:
    for name in ["b.JPG", "a/c.png", "a/b/d.webp", "a/notes.txt", ".hidden.png", "empty/readme.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = [tmp_path / name for name in ["a/b/d.webp", "a/c.png", "b.JPG"]]
    notes = tmp_path / "a" / "notes.txt"
    assert find_images([tmp_path]) == images
    assert find_images([notes, tmp_path / "a"]) == [notes, *images[:2]]
    with pytest.raises(IerfError, match="holds no images"):
        find_images([tmp_path / "empty"])
    with pytest.raises(IerfError, match=r"did you mean b\.JPG"):
        find_images([tmp_path / "b.jpeg"])
