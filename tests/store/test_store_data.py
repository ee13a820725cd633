"""Photographs from folders, parquet files, data sets of the hub and lists."""

import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ierf.errors import IerfError
from ierf.store.photographs import First, open_images


def picture(value: int) -> Image.Image:
    return Image.new("RGB", (6, 4), (value, 0, 255 - value))


def encoded(value: int) -> bytes:
    buffer = BytesIO()
    picture(value).save(buffer, "PNG")
    return buffer.getvalue()


def red(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


def test_a_folder_with_classes(tmp_path: Path) -> None:
    for i, name in enumerate(("b/2.png", "a/1.png", "b/c/0.png", "z.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(tmp_path / name)
    images = open_images(tmp_path)
    assert list(images.names) == ["a/1.png", "b/2.png", "b/c/0.png", "z.png"]
    assert [images.label(i) for i in range(4)] == [0, 1, 1, -1]
    assert [red(images.read(i)) for i in range(4)] == [1, 0, 2, 3]
    before = images.fingerprint
    assert open_images(tmp_path).fingerprint == before
    (tmp_path / "z.png").rename(tmp_path / "y.png")
    assert open_images(tmp_path).fingerprint != before


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_files(tmp_path: Path, struct: bool) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for part in range(2):
        values = [encoded(10 * part + i) for i in range(7)]
        values[3] = b"broken"
        images = [{"bytes": value, "path": "x"} for value in values] if struct else values
        labels = [None, *range(1, 7)]
        table = arrow.table({"image": images, "label": labels, "other": [0] * 7})
        parquet.write_table(table, tmp_path / f"{part}.parquet", row_group_size=2)
    images = open_images(tmp_path)
    assert len(images.names) == len(set(images.names)) == 14
    order = [13, 0, 6, 7, 1, 12]
    assert [red(images.read(i)) for i in order] == [16, 0, 6, 10, 1, 15]
    assert [images.label(i) for i in order] == [6, -1, 6, -1, 1, 5]
    with pytest.raises(IerfError, match=r"1\.parquet:3"):
        images.read(10)
    assert open_images(tmp_path / "1.parquet").names == images.names[7:]
    assert open_images(tmp_path / "1.parquet").fingerprint != images.fingerprint
    first = First(images, 9)
    assert len(first.names) == 9
    assert red(first.read(8)) == 11
    parquet.write_table(arrow.table({"picture": [b""]}), tmp_path / "2.parquet")
    with pytest.raises(IerfError, match="no column 'image'"):
        open_images(tmp_path)
    (tmp_path / "2.parquet").write_bytes(b"PAR")
    with pytest.raises(IerfError, match="as a parquet file"):
        open_images(tmp_path)


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(list[dict[str, Any]]):
        column_names = ("image", "label")
        _fingerprint = "abc"

        def __getitem__(self, key: Any) -> Any:
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def load_dataset(name: str, config: str | None, split: str) -> Rows:
        if (name, config, split) != ("owner/name", None, "validation"):
            raise ValueError(f"no split {split}")
        return Rows({"image": picture(i), "label": 5 - i} for i in range(3))

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    images = open_images("hf:owner/name?split=validation")
    assert [red(images.read(i)) for i in range(3)] == [0, 1, 2]
    assert [images.label(i) for i in range(3)] == [5, 4, 3]
    with pytest.raises(IerfError, match="no split test"):
        open_images("hf:owner/name?split=test")


def test_a_data_set_of_the_hub_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(IerfError, match="datasets"):
        open_images("hf:owner/name")


def test_lists(tmp_path: Path) -> None:
    picture(7).save(tmp_path / "7.png")
    images = open_images([picture(3), np.asarray(picture(4)), tmp_path / "7.png", str(tmp_path / "gone.png")])
    assert [red(images.read(i)) for i in range(3)] == [3, 4, 7]
    assert len(set(images.names)) == 4
    with pytest.raises(IerfError, match=r"gone\.png"):
        images.read(3)
    assert open_images([picture(3)]).fingerprint != open_images([picture(4)]).fingerprint
    twice = open_images([tmp_path / "7.png"] * 2)
    assert len(set(twice.names)) == 2


def test_nothing_to_collect(tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "gone", []):
        with pytest.raises(IerfError):
            open_images(data)
    with pytest.raises(IerfError, match="at least one"):
        First(open_images([picture(1)]), 0)
