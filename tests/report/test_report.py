"""The HTML report: well-formed, self-contained, escaped, honest about how to make it again."""

import os
import re
import shlex
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import ierf
from ierf.attribution import Entry, Leak, Ledger
from ierf.files import write
from ierf.report import Card, Prediction, card, distinct_stems, save_index
from ierf.report.text import as_call, as_command, ledger_sentence, percent
from ierf.store.files import write as write_to_store

VOID = {"meta", "img", "br", "link", "hr", "input"}
NASTY = "<b>x</b>&\"'$title.png"


class Page(HTMLParser):
    """Checks nesting, and collects pictures, addresses and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        attributes = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action") and value]
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def saved(explanation: ierf.Explanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explanation.save(tmp_path_factory.mktemp("made") / "new" / "report.html")


def test_the_page_is_well_formed_and_holds_everything(saved: Path, explanation: ierf.Explanation) -> None:
    html = saved.read_text(encoding="utf-8")
    page = Page(html)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|<script|<link", html)
    assert len(page.images) == 1 + 2 * 3 + len(explanation.fields)
    assert all(image["alt"] for image in page.images)
    assert "tabby" in page.text
    assert "cat.png" in page.text
    assert "bundled:resnet18-tiny" in page.text


def test_the_pictures_beside_it_are_those_inside(saved: Path) -> None:
    inside = [b64decode((image["src"] or "").partition(",")[2]) for image in Page(saved.read_text()).images]
    beside = sorted((saved.parent / "report_pictures").iterdir())
    assert sorted(inside) == sorted(path.read_bytes() for path in beside)
    assert {Image.open(BytesIO(png)).size for png in inside} == {(384, 384)}
    assert {path.name for path in saved.parent.iterdir()} == {"report.html", "report_pictures"}


def test_pictures_may_be_left_out(explanation: ierf.Explanation, tmp_path: Path) -> None:
    explanation.save(tmp_path / "a.html", pngs=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_names_are_escaped_everywhere(explanation: ierf.Explanation, tmp_path: Path) -> None:
    def renamed(prediction: Prediction) -> Prediction:
        return prediction._replace(label=NASTY)

    nasty = replace(
        explanation,
        name=NASTY,
        model_name=f"bundled:{NASTY}",
        source=Path(NASTY),
        top=[renamed(p) for p in explanation.top],
        classes=[renamed(p) for p in explanation.classes],
    )
    report = nasty.save(tmp_path / NASTY.replace("/", "_"))
    index = save_index([card(nasty, report)], tmp_path / "index.html")
    for path in (report, index):
        html = path.read_text(encoding="utf-8")
        page = Page(html)
        assert "b" not in page.tags
        assert NASTY in page.text
    assert (report.parent / f"{report.stem}_pictures").is_dir()


def test_the_index_leads_to_the_reports(explanation: ierf.Explanation, tmp_path: Path) -> None:
    made = card(explanation, tmp_path / "a cat #1.html")
    index = save_index([made, made], tmp_path / "index.html")
    page = Page(index.read_text(encoding="utf-8"))
    assert page.addresses.count("a%20cat%20%231.html") == 2
    assert isinstance(made, Card)
    assert "2 photographs" in page.text


def test_the_command_and_the_call_make_it_again(explanation: ierf.Explanation, model: ierf.VisionModel) -> None:
    command = as_command(explanation)
    assert command is not None
    words = shlex.split(command)
    assert words[:2] == ["ierf", "explain"]
    assert Path(words[2]).exists()
    assert words[3:5] == ["--model", "bundled:resnet18-tiny"]
    names: dict[str, ierf.Explanation] = {}
    exec(as_call(explanation).rpartition("\n")[0], {}, names)
    again = names["explanation"]
    for index, maps in explanation.maps.items():
        assert all((maps[resolution] == again.maps[index][resolution]).all() for resolution in maps)
    bare = replace(explanation, source=None, model_name="Net", options={"bias": "drop"})
    assert as_command(bare) is None
    assert "bias='drop'" in as_call(bare)


def test_the_ledger_in_a_sentence() -> None:
    leak = Leak("softmax", "head", 1.0)
    leaky = Ledger("layer4", (Entry("layer4", 4.0, 3.0, (leak,)), Entry("conv1", 3.0, 2.5, ())))
    assert ledger_sentence(leaky) == (
        "Relevance +4.00 started at layer4; 62.5 % of it reached the pixels; "
        "the largest leaks: softmax in head (25 %), conv1 (12.5 %)."
    )
    tight = Ledger("layer4", (Entry("layer4", 4.0, 3.999996, ()),))
    assert "99.9999 % of it reached the pixels; nothing leaked" in ledger_sentence(tight)
    assert "nothing to distribute" in ledger_sentence(Ledger("layer4", (Entry("layer4", 0.0, 0.0, ()),)))


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100 %"), (0.999999, "99.9999 %"), (0.5, "50 %"), (-0.568, "−56.8 %"), (-1e-9, "0 %")]
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_reports_of_like_named_photographs_stay_apart() -> None:
    photos = [Path(p) for p in ("a/cat.jpg", "b/cat.png", "Cat.gif", "cat-2.jpg", "index.jpg", "dog.jpg")]
    assert list(distinct_stems(photos)) == ["cat", "cat-2", "Cat-3", "cat-2-2", "index-2", "dog"]


def test_writing_follows_links_and_leaves_devices_alone(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo")
    for writer in (write, write_to_store):
        with pytest.raises(ierf.IerfError, match="no regular file"):
            writer(tmp_path / "fifo", b"new")
        assert (tmp_path / "fifo").is_fifo()
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_writing_replaces_whole_files_and_explains_failure(tmp_path: Path) -> None:
    target = tmp_path / "a" / "file"
    write(target, b"old")
    write(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    with pytest.raises(ierf.IerfError, match="cannot write"):
        write(target / "below", b"")
    with pytest.raises(ierf.IerfError, match="cannot write"):
        write(target.parent, b"")
    assert [path.name for path in target.parent.iterdir()] == ["file"]
