"""Readers of data sets, against pictures drawn by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import drawn, open_data

GREY = Image.new("RGB", (6, 4), (90, 90, 90))


def cells(mask: Image.Image) -> set[tuple[int, int]]:
    """(row, column) of what is white."""
    return {(int(r), int(c)) for r, c in np.argwhere(np.asarray(mask) > 127)}


def rectangle(rows: range, columns: range) -> set[tuple[int, int]]:
    return {(r, c) for r in rows for c in columns}


@pytest.fixture
def imagenet_s(tmp_path: Path) -> Path:
    """Two photographs as ImageNet-S stores them: category 1 at two pixels; category 260 = 4 + 256 · 1 at one."""
    root = tmp_path / "ImageNetS50"
    values = np.zeros((4, 6, 3), dtype=np.uint8)
    values[1, 2:4, 0] = 1
    values[0, 0] = (1000 % 256, 1000 // 256, 0)
    other = np.zeros((4, 6, 3), dtype=np.uint8)
    other[3, 5] = (4, 1, 0)
    for wnid, name, mask in (("n02", "n02_1", values), ("n01", "n01_9", other)):
        for folder, suffix, picture in (
            ("validation", "JPEG", GREY),
            ("validation-segmentation", "png", Image.fromarray(mask)),
        ):
            (root / folder / wnid).mkdir(parents=True)
            picture.save(root / folder / wnid / f"{name}.{suffix}")
    (tmp_path / "wnids.txt").write_text("n00\nn01\nn02\n")
    return root


def test_imagenet_s(imagenet_s: Path) -> None:
    data = open_data(f"{imagenet_s}?classes={imagenet_s.parent / 'wnids.txt'}")
    assert data.names == ("n01/n01_9", "n02/n02_1")
    first, second = (data.read(name) for name in data.names)
    assert (first.label, second.label) == (1, 2)
    assert cells(first.objects[1]) == {(3, 5)}
    assert cells(second.objects[2]) == {(1, 2), (1, 3)}
    assert second.image.size == (6, 4)


def test_imagenet_s_of_classes_that_the_model_lacks(imagenet_s: Path) -> None:
    (imagenet_s.parent / "few.txt").write_text("n01\n")
    with pytest.raises(IerfError, match="'n02'"):
        open_data(f"imagenet-s:{imagenet_s}?classes={imagenet_s.parent / 'few.txt'}")
    with pytest.raises(UnknownNameError, match="validation"):
        open_data(f"{imagenet_s}?split=test&classes={imagenet_s.parent / 'wnids.txt'}")


def test_imagenet_s_with_timms_classes(imagenet_s: Path) -> None:
    pytest.importorskip("timm")
    for folder in ("validation", "validation-segmentation"):
        (imagenet_s / folder / "n01").rename(imagenet_s / folder / "n01440764")
        (imagenet_s / folder / "n02").rename(imagenet_s / folder / "n02123045")
    data = open_data(str(imagenet_s))
    assert [data.read(name).label for name in data.names] == [0, 281]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    GREY.save(tmp_path / "a.jpg")
    GREY.save(tmp_path / "b.jpg")
    annotations = [
        {"image_id": 7, "category_id": 3, "segmentation": [[1, 0, 2, 0, 2, 2, 1, 2]], "bbox": [0, 0, 6, 4]},
        {"image_id": 7, "category_id": 3, "bbox": [4, 3, 2, 1], "iscrowd": 0},
        {"image_id": 7, "category_id": 5, "segmentation": {"size": [4, 6], "counts": [5, 2, 17]}, "iscrowd": 0},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 6, 4], "iscrowd": 1},
    ]
    whole = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "cup"}],
        "annotations": annotations,
    }
    (tmp_path / "instances.json").write_text(json.dumps(whole))
    (tmp_path / "classes.json").write_text(json.dumps({"281": "cat", "282": "cat", "504": "cup", "1": "bird"}))
    return tmp_path / "instances.json"


def test_coco(coco: Path) -> None:
    data = open_data(f"{coco}?classes={coco.parent / 'classes.json'}")
    photo, empty = (data.read(name) for name in data.names)
    assert set(photo.objects) == {281, 282, 504}
    assert photo.label is None
    assert cells(photo.objects[281]) == rectangle(range(3), range(1, 3)) | rectangle(range(3, 4), range(4, 6))
    assert cells(photo.objects[282]) == cells(photo.objects[281])
    assert cells(photo.objects[504]) == {(1, 1), (2, 1)}
    assert empty.objects == {}


def test_coco_needs_to_know_the_classes(coco: Path) -> None:
    with pytest.raises(IerfError, match=r"classes=FILE"):
        open_data(str(coco))
    coco.write_text("{}")
    with pytest.raises(IerfError, match="no COCO annotation file"):
        open_data(f"{coco}?classes={coco.parent / 'classes.json'}")


def test_boxes(tmp_path: Path) -> None:
    GREY.save(tmp_path / "a.png")
    GREY.save(tmp_path / "b.png")
    table = tmp_path / "boxes.csv"
    table.write_text("file,label,x0,y0,x1,y1\na.png,4,1,0,2,3\na.png,4,5,1,5,1\nb.png,1,0,0,0,0\nb.png,2,3,3,3,3\n")
    data = open_data(str(table))
    one, two = (data.read(name) for name in data.names)
    assert one.label == 4
    assert cells(one.objects[4]) == rectangle(range(4), range(1, 3)) | {(1, 5)}
    assert two.label is None
    assert {label: cells(mask) for label, mask in two.objects.items()} == {1: {(0, 0)}, 2: {(3, 3)}}
    table.write_text("file,label\na.png,4\n")
    with pytest.raises(IerfError, match="x0"):
        open_data(str(table))


def test_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    GREY.save(tmp_path / "a.png")
    picture = (tmp_path / "a.png").read_bytes()
    columns = {"image": [picture] * 5, "label": list(range(5)), "box": [[1, 0, 2, 3]] * 4 + [None]}
    parquet.write_table(arrow.table(columns), tmp_path / "p.parquet", row_group_size=2)
    data = open_data(str(tmp_path / "p.parquet"))
    assert data.names == ("00000", "00001", "00002", "00003", "00004")
    for name in reversed(data.names):
        photo = data.read(name)
        assert photo.label == int(name)
        expected = {int(name): rectangle(range(4), range(1, 3))} if name != "00004" else {}
        assert {label: cells(mask) for label, mask in photo.objects.items()} == expected


def test_a_folder_of_photographs(tmp_path: Path) -> None:
    GREY.save(tmp_path / "a.png")
    data = open_data(str(tmp_path))
    assert data.names == ("a.png",)
    assert data.read("a.png").label is None


def test_other_data_have_another_fingerprint(tmp_path: Path) -> None:
    prints = []
    for label in (1, 2):
        (tmp_path / "boxes.csv").write_text(f"file,label,x0,y0,x1,y1\na.png,{label},0,0,1,1\n")
        prints.append(open_data(str(tmp_path / "boxes.csv")).fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    "address", ["gone", "{}/notes.txt", "boxes:{}/notes.txt?image=x", "boxes:{}/notes.txt?images="]
)
def test_mistakes_are_named(address: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(IerfError):
        open_data(address.format(tmp_path))


def test_a_larger_draw_contains_a_smaller_one(tmp_path: Path) -> None:
    rows = "".join(f"{i:03d}.png,0,0,0,1,1\n" for i in range(50))
    (tmp_path / "boxes.csv").write_text(f"file,label,x0,y0,x1,y1\n{rows}")
    data = open_data(str(tmp_path / "boxes.csv"))
    small, large = drawn(data, 5, 0), drawn(data, 20, 0)
    assert len(set(small)) == 5
    assert set(small) < set(large)
    assert large == sorted(large)
    assert drawn(data, 5, 1) != small
    assert drawn(data, None, 0) == list(data.names)
