"""The interactive page of a concept graph, in a real browser, opened from a file with the network cut."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from PIL import Image
from support.group_graphs import grouped, leaves
from support.page_graphs import HOSTILE, SHARES, large, small

from ierf.graph import ConceptGraph, Finding, compare, page, save_comparison, to_json
from ierf.graph.hierarchy import summed

SVG = "{http://www.w3.org/2000/svg}"


@dataclass
class Opened:
    """A page in a tab, and what went wrong in it."""

    tab: Any
    complaints: list[str]
    requests: list[str]

    @property
    def url(self) -> str:
        """The address as it is now: the browser tells of a changed one a little later."""
        return str(self.tab.evaluate("location.href"))

    def node(self, name: str) -> Any:
        return self.tab.locator(f'[data-node="{name}"]')

    def canvas(self, number: int, column: float, row: float) -> tuple[int, int, int]:
        """The colour at a place of a photograph, in shares of its size."""
        found = self.tab.evaluate(
            """([number, x, y]) => { const c = document.querySelectorAll(".photo canvas")[number];
            const one = new OffscreenCanvas(1, 1).getContext("2d");
            one.drawImage(c, -Math.floor(x * c.width), -Math.floor(y * c.height));
            return [...one.getImageData(0, 0, 1, 1).data]; }""",
            [number, column, row],
        )
        return tuple(found[:3])

    def between(self, lower: str, upper: str) -> tuple[float, float]:
        """Halfway along an edge: as curves are point symmetric that is halfway between its ends."""
        low, high = self.node(lower).bounding_box(), self.node(upper).bounding_box()
        across = (low["x"] + low["width"] / 2 + high["x"] + high["width"] / 2) / 2
        return across, (low["y"] + high["y"] + high["height"]) / 2

    def set(self, name: str, value: float) -> None:
        self.tab.locator(f"input[name={name}]").fill(str(value))

    def read(self, text: str) -> str:
        """What the page says of a file of names and notes."""
        said = self.tab.locator(".menu [role=status]")
        said.evaluate("(said) => { said.textContent = ''; }")
        file = {"name": "notes.json", "mimeType": "application/json", "buffer": text.encode()}
        self.tab.locator(".menu input[type=file]").set_input_files(file)
        self.tab.wait_for_function("document.querySelector('.menu [role=status]').textContent")
        return str(said.text_content())

    def saved(self, button: str) -> Path:
        self.tab.locator(".menu summary").click()
        with self.tab.expect_download() as download:
            self.tab.get_by_role("button", name=button, exact=True).click()
        self.tab.locator(".menu summary").click()
        return Path(download.value.path())


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a page; at the end of the test nothing may have gone wrong in any."""
    opened, contexts = [], []

    def go(path: Path, view: str = "", scheme: str = "light") -> Opened:
        context = browser.new_context(viewport={"width": 1366, "height": 768}, color_scheme=scheme)
        context.set_offline(True)
        context.set_default_timeout(15_000)
        contexts.append(context)
        new = Opened(context.new_page(), [], [])
        new.tab.on("console", lambda message: new.complaints.append(message.text))
        new.tab.on("pageerror", lambda error: new.complaints.append(str(error)))
        new.tab.on("dialog", lambda dialog: new.complaints.append(dialog.message))
        new.tab.on("request", lambda request: new.requests.append(request.url))
        opened.append(new)
        new.tab.goto(f"{path.as_uri()}{view}")
        new.tab.wait_for_selector("html[data-ready]")
        return new

    yield go
    assert [text for each in opened for text in each.complaints] == []
    assert all(url.startswith(("file:", "data:", "blob:")) for each in opened for url in each.requests)
    for context in contexts:
        context.close()


def thread(seen: Opened) -> Callable[[], float]:
    """Milliseconds that the page's thread has worked so far: the same however busy the machine is."""
    session = seen.tab.context.new_cdp_session(seen.tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    return busy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pages")
    small().save(made / "graph.html")
    small().save(made / "one.html", single_file=True)
    return made


def test_what_a_user_names_is_text(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html")
    assert seen.tab.title() == f"cat.png: tabby and {HOSTILE}"
    assert seen.tab.locator("img").count() == 0
    assert seen.tab.locator("script").count() == 2
    assert f"class {HOSTILE}" in seen.node("logits/8").get_attribute("aria-label")


def test_every_node_and_edge_is_drawn_with_its_influence(folder: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(folder / "graph.html"), small()
    assert seen.tab.locator(".node").count() == len(graph.nodes)
    assert seen.tab.locator(".edges .edge").count() == len(graph.edges)
    assert seen.tab.locator(".edges .against").count() == sum(edge.value < 0 for edge in graph.edges) == 2
    assert seen.tab.locator(".node.residual").count() == 2
    widths = [float(each.get_attribute("stroke-width")) for each in seen.tab.locator(".edges .edge").all()]
    assert widths == sorted(widths)
    assert widths[-1] == 6.0
    tops = [seen.node(name).bounding_box()["y"] for name in ("logits/3", "b/0", "a/4")]
    assert tops == sorted(tops)
    assert "75 % of the flow" in " ".join(seen.tab.locator("svg.cards text.soft").all_text_contents())
    assert seen.node("a/4").get_attribute("aria-label").endswith("29 % of the flow")


def test_pointing_at_a_node_paints_its_places_or_its_pixels(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html", "#opacity=1")
    plain = seen.canvas(0, 0.875, 0.125)
    assert plain == (40, 160, 80)
    seen.node("a/4").hover()
    red, _, blue = seen.canvas(0, 0.875, 0.125)
    assert red > blue + 100
    assert len(set(seen.canvas(0, 0.125, 0.875))) == 1
    assert "dimmed" in seen.tab.locator("svg.edges").get_attribute("class")
    assert seen.tab.locator("svg.lit .edge").count() == 2
    seen.tab.keyboard.press("m")
    assert len(set(seen.canvas(0, 0.875, 0.001))) == 1
    red, _, blue = seen.canvas(0, 0.875, 0.375)
    assert red > blue + 100
    seen.tab.mouse.move(5, 400)
    assert seen.canvas(0, 0.875, 0.375) == plain
    seen.node("a/4").click()
    seen.set("opacity", 0)
    assert seen.canvas(0, 0.875, 0.375) == plain


def test_pointing_at_an_edge_shows_where_it_acts(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html", "#opacity=1")
    x, y = seen.between("a/5", "b/1")
    seen.tab.mouse.move(x, y)
    captions = seen.tab.locator("figcaption")
    assert captions.all_inner_texts() == ["where #5 of a acts on it", "where #1 of b is"]
    # The edge is −1 in the source's cell and 0.5 in the target's; the target is 2 in its own.
    against, favour, target = seen.canvas(0, 0.125, 0.875), seen.canvas(0, 0.875, 0.875), seen.canvas(1, 0.875, 0.875)
    assert against[2] > against[0] + 100
    assert favour[0] > favour[2] + 100
    assert target[0] > target[2] + 100
    assert len(set(seen.canvas(1, 0.125, 0.875))) == 1
    seen.tab.keyboard.press("m")
    assert captions.all_inner_texts() == ["pixels of #5 of a", "pixels of #1 of b"]
    seen.tab.mouse.click(x, y)
    assert "edge=a%2F5%3Eb%2F1" in seen.url
    said = seen.tab.locator(".panel").inner_text()
    assert "It adds −0.50 to the score of its target: 50 %" in said
    assert "half of it at\n1 of 16 places" in said
    seen.tab.keyboard.press("m")
    seen.tab.get_by_label("Card of the edge").get_by_role("button", name="b #1").hover()
    assert captions.all_inner_texts() == [""]
    residual = look(folder / "graph.html", "#edge=b%2Fresidual%3Elogits%2F3")
    assert "It is not known by position" in residual.tab.locator(".panel").inner_text()
    assert residual.tab.locator("figcaption").all_inner_texts() == [
        "residual of b: its places are not known",
        "tabby: a class has no place",
    ]


def test_a_place_ranks_the_concepts_by_their_evidence_there(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html")
    box = seen.tab.locator(".photo canvas").bounding_box()
    seen.tab.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"])
    found = seen.tab.locator(".ranking li").all_inner_texts()
    # The iERFs are 0.25 q − 0.5 in that cell and 1 + q in another one, in steps of 1/127 of that; layer b is above a.
    evidence = [[float(each) for each in re.sub("[#%]", "", text).replace("−", "-").split()] for text in found]
    assert [each[0] for each in evidence] == [0, 1, 5, 4]
    for concept, value, share in evidence:
        assert value == pytest.approx(0.25 * concept - 0.5, abs=0.02)
        assert share == pytest.approx(
            100 * abs(0.25 * concept - 0.5) / (1 + concept + abs(0.25 * concept - 0.5)), abs=1
        )
    seen.tab.locator(".photo canvas").press("ArrowUp")
    assert "pixel=" in seen.url


def test_a_card_says_what_is_known_and_keeps_names(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html")
    seen.node("b/0").click()
    card = seen.tab.locator(".about")
    assert card.locator(".crops img").count() == 10
    seen.tab.wait_for_function("document.querySelector('.crops img').naturalWidth === 96")
    text = card.inner_text()
    for fact in ("concept 0 of b", "30 %", "+2.00", "−0.50", "in 12 % of PFVs", "tiger", "75 %", "#7 0.40", "cosine"):
        assert fact in text + (card.locator("img").first.get_attribute("alt") or "")
    assert text.split("of it at prefix tokens")[1].split()[:2] == ["28", "%"]
    assert [each.split() for each in card.locator(".edges-of").last.locator("li").all_inner_texts()] == [
        ["#4", "edge", "+0.60", "60", "%"],
        ["residual", "edge", "+0.20", "20", "%"],
        ["#5", "edge", "−0.10", "10", "%"],
    ]
    card.get_by_label("Name of the concept").fill("<i>stripes")
    card.get_by_label("Note on the concept").fill("seen often")
    assert card.locator("h2").inner_text() == "<i>stripes"
    seen.tab.reload()
    seen.tab.wait_for_selector("html[data-ready]")
    assert seen.node("b/0").locator(".name").text_content() == "<i>stripes"
    assert json.loads(seen.saved("Names and notes").read_text()) == {
        "b/0": {"name": "<i>stripes", "note": "seen often"}
    }
    path = seen.saved("JSON")
    assert ConceptGraph.load(path).node("b/0").label == "<i>stripes"
    other = look(folder / "graph.html", "#node=b%2F0")
    assert other.node("b/0").locator(".name").text_content() == "#0"
    given = {"b/1": {"name": "ears"}, "elsewhere/9": {"name": "", "note": "of another graph"}}
    assert other.read(json.dumps(given)) == "2 read, 1 of them in this graph."
    other.read(path.read_text())
    assert other.node("b/0").locator(".name").text_content() == "<i>stripes"
    assert other.tab.get_by_label("Note on the concept").input_value() == "seen often"
    assert set(json.loads(other.saved("Names and notes").read_text())) == {"b/0", "b/1", "elsewhere/9"}
    for wrong in ("no JSON", "[1]", '{"b/0": 7}', '{"b/0": {"name": 7}}', json.dumps(to_json(small()))):
        assert other.read(wrong) == "This file holds no names and notes."
    assert other.node("b/0").locator(".name").text_content() == "<i>stripes"


def test_sliders_keep_the_strongest_and_say_how_much(folder: Path, look: Callable[..., Opened], tmp_path: Path) -> None:
    seen = look(folder / "graph.html")
    outputs = seen.tab.locator(".controls output")
    assert outputs.all_inner_texts()[-2:] == ["4 of 4", "12 of 12, 100 % of the drawn flow"]
    seen.set("edges", 0.5)
    # Into the classes 0.35 + 0.25 of 0.825 are the fewest that reach a half; then b/0 has 0.25 and b/1 0.35, and from
    # them 0.175 + 0.15 of 0.5225; 0.925 of 1.4775 in all.
    assert outputs.all_inner_texts()[-1] == "4 of 12, 63 % of the drawn flow"
    assert seen.tab.locator(".edges .edge").count() == 4
    seen.set("nodes", 0.5)
    # b/1 has the most influence of its row, a/4 of its own.
    assert outputs.all_inner_texts()[-2] == "2 of 4"
    assert seen.tab.locator(".node.concept:visible").count() == 2
    seen.tab.keyboard.press("u")
    assert outputs.all_inner_texts()[-2] == "4 of 4"
    cut = look(small().pruned(0.5).save(tmp_path / "cut.html"))
    assert cut.tab.locator(".controls output").all_inner_texts()[-1] == (
        "8 of 8, 100 % of the drawn flow; built with 50 % of all"
    )
    assert "carry 50 % of the flow there, are in this file" in cut.tab.locator(".panel").inner_text()


def test_the_view_is_in_the_address_and_can_be_taken_back(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html")
    seen.node("b/1").click()
    seen.tab.keyboard.press("3")
    seen.set("routes", 2)
    seen.set("edges", 0.9)
    seen.tab.locator("#search").fill("tiger b")
    assert seen.tab.locator(".search .number").inner_text() == "2 found"
    assert seen.tab.locator(".node.lost").count() == len(small().nodes) - 2
    again = look(folder / "graph.html", "#" + seen.url.split("#")[1])
    assert again.tab.locator("#search").input_value() == "tiger b"
    assert again.tab.locator("input[name=mode][value=routes]").is_checked()
    assert again.tab.locator(".routes li").count() == 2
    assert "chosen" in again.node("b/1").get_attribute("class")
    assert again.tab.locator("input[name=edges]").input_value() == "0.9"
    before = seen.url
    for _ in range(5):
        seen.tab.get_by_role("button", name="Undo").click()
    assert seen.url.endswith("#")
    assert seen.tab.get_by_role("button", name="Undo").is_disabled()
    for _ in range(5):
        seen.tab.get_by_role("button", name="Redo").click()
    assert seen.url == before
    broken = look(folder / "graph.html", "#node=none/1&mode=?&edges=7&first=50&pixel=2,x")
    assert broken.tab.locator("input[name=mode][value=influence]").is_checked()


def test_everything_can_be_reached_by_keys(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html")
    chosen = seen.tab.locator(".node.chosen")

    def press(key: str) -> str:
        seen.tab.keyboard.press(key)
        return chosen.get_attribute("data-node") if chosen.count() else ""

    assert press("ArrowDown") == "logits/3"
    assert press("ArrowRight") == "logits/8"
    assert press("ArrowDown") == "b/1"
    assert press("ArrowDown") == "a/5"
    assert press("ArrowUp") == "b/1"
    assert seen.tab.evaluate("document.activeElement.dataset.node") == "b/1"
    assert press("Escape") == ""
    seen.tab.keyboard.press("/")
    seen.tab.keyboard.type("u2")
    assert seen.tab.locator("#search").input_value() == "u2"
    seen.tab.keyboard.press("Escape")
    width = seen.tab.locator("svg.cards").bounding_box()["width"]
    for key, size in (("+", 1.2), ("-", 1), ("-", 1 / 1.2), ("0", 1)):
        seen.tab.keyboard.press(key)
        assert seen.tab.locator("svg.cards").bounding_box()["width"] == pytest.approx(size * width, rel=1e-4)
    for button, size in (("Larger", 1.2), ("Smaller", 1), ("Smaller", 1 / 1.2), ("As at first", 1)):
        seen.tab.get_by_role("button", name=button).click()
        assert seen.tab.locator("svg.cards").bounding_box()["width"] == pytest.approx(size * width, rel=1e-4)
    seen.node("b/0").focus()
    assert press("Enter") == "b/0"
    assert press("ArrowRight") == "b/1"
    assert press("Control+z") == "b/0"
    assert press("Control+Shift+z") == "b/1"
    assert press("u") == "b/0"
    assert press("U") == "b/1"
    place = seen.tab.locator(".photo canvas")
    place.focus()
    for key in ("ArrowRight", "ArrowDown"):
        seen.tab.keyboard.press(key)
    assert "pixel=0.5313%2C0.5313" in seen.url
    assert press("Escape") == ""
    assert seen.tab.locator(".about").count() == 0
    unnamed = seen.tab.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea, canvas, [role=button]")].filter((e) =>
        !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.[0]?.textContent.trim())).length"""
    )
    assert unnamed == 0


def test_routes_and_differences_are_those_of_the_shares(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html", "#mode=routes&routes=3")
    texts = [" ".join(text.split()) for text in seen.tab.locator(".routes li").all_inner_texts()]
    assert texts[0] == "30 % tabby ← b #0 ← a #4"
    assert {texts[1], texts[2]} == {"10 % tabby ← b #1 ← a #5", "10 % tabby ← b #0 ← a residual"}
    seen.tab.get_by_label("Class", exact=True).select_option("1")
    assert seen.tab.locator(".routes li").first.inner_text().startswith("35 %")
    seen.tab.keyboard.press("2")
    seen.tab.get_by_label("Class", exact=True).select_option("0")
    text = seen.tab.locator(".difference").inner_text()
    assert text.startswith("Why tabby, not </script>")
    rows = [each.split() for each in seen.tab.locator(".difference ul").first.locator("li").all_inner_texts()]
    assert rows == [["#0", "+2.50"], ["#1", "−0.50"], ["residual", "−0.10"]]
    # The flow to tabby less that to the other: b/0's edge to tabby 0.5; a/4's to b/0 0.6 (0.5 − 0.1), to b/1 −0.125.
    kinds = seen.tab.evaluate(
        "[...document.querySelectorAll('.edges .edge')].map((e) => [e.__data__.edge.key, e.__data__.value])"
    )
    values = dict(kinds)
    assert values["b/0 → logits/3"] == pytest.approx(0.5)
    assert values["b/1 → logits/8"] == pytest.approx(-0.7)
    assert values["a/4 → b/0"] == pytest.approx(0.24)
    assert values["a/4 → b/1"] == pytest.approx(-0.125)
    assert seen.tab.locator(".edges .first").count() == sum(value > 0 for value in values.values())


def test_exports_are_whole(folder: Path, look: Callable[..., Opened], tmp_path: Path) -> None:
    seen = look(folder / "one.html")
    drawn = ElementTree.parse(seen.saved("SVG")).getroot()
    nodes = [each for each in drawn.iter(f"{SVG}g") if "node" in each.get("class", "").split()]
    assert len(nodes) == len(small().nodes)
    images = [each.get("href", "") for each in drawn.iter(f"{SVG}image")]
    assert len(images) == 4
    assert all(address.startswith("data:image/") for address in images)
    styles = "".join(each.text or "" for each in drawn.iter(f"{SVG}style"))
    assert "stroke" in styles
    assert "var(" not in styles
    with Image.open(seen.saved("PNG")) as picture:
        assert picture.width == pytest.approx(2 * float(drawn.get("width", "0")), abs=1)
        assert len(picture.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 50
    assert ConceptGraph.load(seen.saved("JSON")) == small()
    beside = look(folder / "graph.html")
    bare = replace(small(), nodes=tuple(replace(node, exemplars=()) for node in small().nodes))
    assert ConceptGraph.load(beside.saved("JSON")) == bare


def test_two_photographs_share_one_layout(tmp_path: Path, look: Callable[..., Opened]) -> None:
    shares = {**SHARES, ("b/1", "logits/3"): 0.4}
    del shares["a/5", "b/0"]
    found = compare(small(), small(shares, "attacked.png"))
    seen = look(save_comparison(found, tmp_path / "two.html", keep=1.0))
    assert seen.tab.locator(".photo canvas").count() == 2
    assert seen.tab.locator("figcaption").all_inner_texts() == ["cat.png", "attacked.png"]
    assert {" ".join(each.split()) for each in seen.tab.locator(".findings li").all_inner_texts()} == {
        "b/1 → tabby grew: +0.20 → +0.40",
        "a/5 → b/0 vanished: −0.10 → +0.00",
    }
    changed = seen.tab.locator(".edges .edge")
    assert changed.count() == 2
    assert seen.tab.locator(".edges .for").count() == 2
    for side, edges in (("before", len(SHARES)), ("after", len(shares))):
        seen.tab.locator(f"input[name=side][value={side}] + span").click()
        assert changed.count() == edges
    seen.tab.locator(".findings button").first.click()
    assert "+0.20 → +0.40" in seen.tab.locator(".about").inner_text()
    seen.tab.locator("input[name=side][value=change] + span").click()
    captions = seen.tab.locator("figcaption")
    assert captions.all_inner_texts() == ["cat.png: where #1 of b acts on it", "attacked.png: where #1 of b acts on it"]
    seen.tab.locator(".findings button").last.click()
    assert captions.all_inner_texts() == [
        "cat.png: where #5 of a acts on it",
        "attacked.png: #5 of a does not act on it",
    ]


def test_a_concept_of_one_photograph_alone_keeps_its_card(tmp_path: Path, look: Callable[..., Opened]) -> None:
    after = replace(small(), photo="attacked.png", nodes=tuple(n for n in small().nodes if n.id != "b/1"))
    after = replace(after, edges=tuple(edge for edge in after.edges if "b/1" not in (edge.source, edge.target)))
    seen = look(save_comparison(compare(small(), after), tmp_path / "two.html", keep=1.0), "#side=after&node=b%2F1")
    card = seen.tab.locator(".about").inner_text()
    assert "It is no node of this photograph’s graph, only of the other." in card
    assert seen.tab.locator(".about .crops img").count() == 10
    assert "tiger" in card


def test_the_photograph_stays_in_sight(folder: Path, look: Callable[..., Opened]) -> None:
    seen = look(folder / "graph.html", "#scale=3")
    for width, height in ((1366, 768), (700, 900)):
        seen.tab.set_viewport_size({"width": width, "height": height})
        seen.node("a/4").scroll_into_view_if_needed()
        box = seen.tab.locator(".photo canvas").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height
        assert seen.tab.evaluate("document.documentElement.scrollWidth") <= width


def test_with_one_class_there_is_no_difference(tmp_path: Path, look: Callable[..., Opened]) -> None:
    seen = look(small().pruned(1.0, [3]).save(tmp_path / "one.html"))
    assert [each.get_attribute("value") for each in seen.tab.locator("input[name=mode]").all()] == [
        "influence",
        "routes",
    ]
    seen.tab.keyboard.press("2")
    assert seen.tab.locator("input[name=mode][value=influence]").is_checked()


def test_findings_lead_to_their_nodes(tmp_path: Path, look: Callable[..., Opened]) -> None:
    path = tmp_path / "why.html"
    findings = [Finding("it leads"), Finding("without it less", ("b/1",))]
    path.write_text(page(small(), title="why", findings=findings, start="mode=difference&edges=0.5"), encoding="utf-8")
    seen = look(path)
    assert seen.tab.locator("input[name=mode][value=difference]").is_checked()
    seen.tab.get_by_role("button", name="without it less").click()
    assert "chosen" in seen.node("b/1").get_attribute("class")


def test_the_page_follows_the_colours_of_the_system(folder: Path, look: Callable[..., Opened]) -> None:
    papers = [
        look(folder / "graph.html", scheme=scheme).tab.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert papers == ["rgb(253, 253, 252)", "rgb(20, 23, 26)"]


def test_pictures_lie_in_a_folder_or_inside(folder: Path, look: Callable[..., Opened]) -> None:
    names = {path.name for path in (folder / "graph_pictures").iterdir()}
    # The concepts have the same ten.
    assert len(names) == 10
    assert not (folder / "one_pictures").exists()
    seen = look(folder / "graph.html")
    assert not any("_pictures" in url for url in seen.requests)
    alone = look(folder / "one.html", "#node=b%2F0")
    alone.tab.wait_for_function("document.querySelector('.crops img').naturalWidth === 96")
    assert not any("_pictures" in url for url in alone.requests)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grouped().save(tmp_path_factory.mktemp("groups") / "groups.html", single_file=True)


DRAWN = """() => ({
  nodes: [...document.querySelectorAll(".node")].map((e) => e.dataset.node).sort(),
  edges: Object.fromEntries([...document.querySelectorAll(".edges .edge")].map(({ __data__: { edge } }) => {
    const { value, weight, share, p_value } = edge.versions.at(-1);
    return [edge.key, [value, weight, share, p_value]];
  })),
  flows: Object.fromEntries([...document.querySelectorAll(".edges .edge")].flatMap(({ __data__: { edge } }) =>
    [edge.source, edge.target].map((node) => [node.id, node.versions.at(-1).influence]))),
})"""


def assert_drawn(seen: Opened, graph: ConceptGraph) -> None:
    """The page has the nodes and edges of the graph, and their numbers."""
    found = seen.tab.evaluate(DRAWN)
    assert found["nodes"] == sorted(node.id for node in graph.nodes)
    expected = {f"{e.source} → {e.target}": [e.value, e.weight, e.share, e.p_value] for e in graph.edges}
    assert found["edges"].keys() == expected.keys()
    for key, numbers in expected.items():
        assert found["edges"][key] == pytest.approx(numbers, abs=1e-6)
    assert found["flows"] == pytest.approx({name: graph.node(name).influence for name in found["flows"]}, abs=1e-6)


def test_opening_a_group_gives_the_graph_that_python_gives(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups), grouped()
    assert_drawn(seen, graph)
    seen.node("b/group4").dblclick()
    assert_drawn(seen, graph.opened("b/group4"))
    seen.node("a/group3").click()
    seen.tab.get_by_role("button", name="Open into its two halves").click()
    assert "chosen" in seen.node("a/group6").get_attribute("class")
    both = graph.opened("b/group4").opened("a/group3")
    assert_drawn(seen, both)
    seen.tab.keyboard.press("o")
    deep = both.opened("a/group6")
    assert_drawn(seen, deep)
    assert seen.tab.evaluate("document.activeElement.dataset.node") == "a/9"
    seen.node("b/group5").dblclick()
    assert_drawn(seen, deep)


def test_closing_a_group_restores_what_was_there(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups), grouped()
    seen.node("a/group3").dblclick()
    seen.node("a/group6").dblclick()
    seen.node("a/8").click()
    seen.tab.get_by_role("button", name="Close into group 3").click()
    assert_drawn(seen, graph)
    assert "folds" not in seen.url
    seen.node("b/group1").click()
    seen.tab.keyboard.press("c")
    assert_drawn(seen, graph.closed("b/group0"))
    assert "chosen" in seen.node("b/group0").get_attribute("class")
    for _ in range(2):
        seen.tab.keyboard.press("u")
    assert_drawn(seen, graph)
    seen.tab.keyboard.press("U")
    seen.tab.keyboard.press("U")
    assert_drawn(seen, graph.closed("b/group0"))
    seen.tab.keyboard.press("o")
    assert_drawn(seen, graph)


def test_one_slider_is_the_budget(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups), grouped()
    slider = seen.tab.locator("input[name=budget]")
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["1", "4"]
    assert slider.input_value() == "2"
    seen.node("a/group3").dblclick()
    for budget in (1, 3, 4, 2):
        seen.set("budget", budget)
        assert_drawn(seen, graph.cut(budget))
        # The own direction is of no group.
        inner = sum(node.kind not in ("class", "residual") for node in graph.cut(budget).nodes)
        assert seen.tab.locator(".controls output").all_inner_texts()[0] == f"{budget} a row"
        assert seen.tab.locator(".controls output").all_inner_texts()[-2] == f"{inner} of {inner}"
    # What was looked at is part of what is shown instead.
    seen.set("budget", 4)
    seen.node("a/10").click()
    seen.set("budget", 2)
    assert "chosen" in seen.node("a/group3").get_attribute("class")


def test_what_was_opened_is_in_the_address(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups), grouped()
    seen.set("budget", 3)
    seen.node("a/group6").dblclick()
    seen.node("b/0").click()
    seen.tab.keyboard.press("c")
    expected = graph.cut(3).opened("a/group6").closed("b/group1")
    assert_drawn(seen, expected)
    again = look(groups, "#" + seen.url.split("#")[1])
    assert_drawn(again, expected)
    assert again.tab.locator("input[name=budget]").input_value() == "3"
    assert "chosen" in again.node("b/group1").get_attribute("class")
    assert_drawn(look(groups, "#budget=77&folds=%2Bnone%2F1,-b%2F0,?&node=a%2F7"), graph.cut(4))


def test_a_group_is_a_sum_wherever_its_edges_act(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups, "#opacity=1&edge=a%2Fgroup3%3Eb%2Fgroup4"), grouped()
    assert graph.hierarchy is not None
    pair = graph.hierarchy.pairs[1]
    rows, columns = ([i for i in pair.sources if i in leaves("a/group3")], leaves("b/group4"))
    below, above = ["a/7", "a/8", "a/9", "a/10", "a/own0"], ["b/0", "b/1", "b/2", "b/group5"]
    total = summed([pair.maps[below.index(s)][above.index(t)] for s in rows for t in columns])
    strongest = int(total.abs().flatten().argmax())
    row, column = divmod(strongest, 2)
    red, _, blue = seen.canvas(0, 0.25 + 0.5 * column, (2 * row + 1) / 6)
    assert (red > blue + 80) == (float(total[row, column]) > 0)
    assert (blue > red + 80) == (float(total[row, column]) < 0)
    sizes = total.abs().flatten().sort(descending=True).values
    half = int((sizes.cumsum(0) < sizes.sum() / 2).sum()) + 1
    assert f"{half} of 6 places" in seen.tab.locator(".about").inner_text()


def test_cards_of_groups_and_residuals_say_what_they_are(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups, "#node=a%2Fgroup3"), grouped()
    card = seen.tab.locator(".about")
    text, node = card.inner_text(), graph.node("a/group3")
    assert text.startswith("group 3\n\n9 concepts of a")
    claim, effect = (part.split("concepts that add")[0] for part in text.split("Claim:")[1].split("Effect:"))
    for said, numbers in ((claim, node.importance), (effect, node.effects)):
        for number in numbers:
            assert f"{number:+.2f}".replace("-", "−") in said
    assert "tiger" in text
    assert "#20, #21" in text
    assert "and 1 more" in text
    card.get_by_role("button", name="group 6 (6)").click()
    assert_drawn(seen, graph.opened("a/group3"))
    assert "chosen" in seen.node("a/group6").get_attribute("class")
    seen.node("a/own0").click()
    assert "this photograph’s own residual" in card.inner_text()
    assert card.get_by_label("Name of").count() == 0
    seen.node("a/residual").click()
    text = card.inner_text()
    assert "It speaks for class 3 (+0.10) and against class 8 (−0.20)." in text
    assert "its own directions are shown: own 1" in text
    red, _, blue = seen.canvas(0, 0.5, 0.5)
    assert red > blue + 30
    seen.node("b/residual").click()
    assert "no more than a tenth" in card.inner_text()


def test_the_account_counts_what_each_class_holds(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups), grouped()
    alone = [graph.pruned(1.0, [c]) for c in (3, 8)]
    panel = seen.tab.locator(".panel details").first
    rows = [row.split("\t") for row in panel.locator(".held").first.locator("tbody tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["b", "a"]
    for name, *shares in rows:
        expected = [
            share for one in alone for share in (one.account(name).influence_kept, one.account(name).influence_residual)
        ]
        assert [float(share.rstrip(" %")) for share in shares] == pytest.approx([100 * e for e in expected], abs=0.5)
    assert panel.inner_text().index("What is drawn holds, down to a,") < panel.inner_text().index("KKT")
    assert panel.evaluate(
        "(e) => [e, ...e.querySelectorAll('.scroll')].every((part) => part.scrollWidth <= part.clientWidth)"
    )
    held = panel.locator("p").first.inner_text()
    seen.node("b/group4").dblclick()
    seen.tab.keyboard.press("Escape")
    assert panel.locator("p").first.inner_text() != held


def test_an_opened_graph_is_saved_whole(groups: Path, look: Callable[..., Opened]) -> None:
    seen, graph = look(groups), grouped()
    seen.node("b/group4").dblclick()
    loaded, expected = ConceptGraph.load(seen.saved("JSON")), graph.opened("b/group4")
    assert [node.id for node in loaded.nodes] == [node.id for node in expected.nodes]
    assert {(e.source, e.target): e.value for e in loaded.edges} == {
        (e.source, e.target): e.value for e in expected.edges
    }
    for edge in loaded.edges:
        other = next(e for e in expected.edges if (e.source, e.target) == (edge.source, edge.target))
        assert (edge.map is None) == (other.map is None)
        if edge.map is not None and other.map is not None:
            assert float((edge.map.tensor() - other.map.tensor()).abs().max()) <= 1.01 * other.map.scale
    assert loaded.hierarchy is not None
    assert graph.hierarchy is not None
    assert loaded.hierarchy.nodes == graph.hierarchy.nodes
    for pair, other in zip(loaded.hierarchy.pairs, graph.hierarchy.pairs, strict=True):
        assert (pair.values, pair.p_values) == (other.values, other.p_values)
        assert [[c.content for c in row] for row in pair.maps] == [[c.content for c in row] for row in other.maps]
    assert loaded.account("a").influence_kept == pytest.approx(expected.account("a").influence_kept, abs=1e-6)


def test_a_pruned_graph_of_groups_is_drawn_pruned_and_opens_whole(tmp_path: Path, look: Callable[..., Opened]) -> None:
    cut = grouped().pruned(0.3)
    assert len(cut.nodes) < len(grouped().nodes)
    seen = look(cut.save(tmp_path / "cut.html"))
    assert len(cut.edges) < len(grouped().edges)
    assert seen.tab.evaluate(DRAWN)["edges"].keys() == {f"{e.source} → {e.target}" for e in cut.edges}
    group = next(node.id for node in cut.nodes if node.opens)
    seen.node(group).dblclick()
    assert_drawn(seen, cut.opened(group))


def test_two_graphs_of_the_same_groups_are_opened_together(tmp_path: Path, look: Callable[..., Opened]) -> None:
    before, after = grouped(0), grouped(1, "attacked.png")
    seen = look(save_comparison(compare(before, after), tmp_path / "two.html", keep=1.0), "#side=after")
    assert_drawn(seen, after)
    seen.node("b/group4").dblclick()
    assert_drawn(seen, after.opened("b/group4"))
    assert seen.tab.evaluate(DRAWN.replace("at(-1)", "at(0)"))["flows"]["b/group5"] == pytest.approx(
        before.opened("b/group4").node("b/group5").influence, abs=1e-6
    )
    assert seen.tab.locator(".photo canvas").count() == 2


def test_a_deep_graph_is_small_and_quick_to_see(tmp_path: Path, look: Callable[..., Opened]) -> None:
    path = large(16, 13, 1000).save(tmp_path / "deep.html")
    text = path.read_text(encoding="utf-8")
    assert len(re.sub(r"data:image/[^\"]*", "", text)) <= 1.5e6
    seen = look(path)
    assert seen.tab.locator(".node").count() == 16 * 13 + 2
    busy = thread(seen)
    before = busy()
    seen.tab.reload()
    seen.tab.wait_for_selector("html[data-ready]")
    seen.tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    assert 20 < busy() - before <= 1000


def test_pointing_is_answered_at_once_in_a_crowd(tmp_path: Path, look: Callable[..., Opened]) -> None:
    seen = look(large(16, 25, 4000).save(tmp_path / "crowd.html"))
    assert seen.tab.locator(".edges .edge").count() == 4000
    busy = thread(seen)
    boxes = [seen.tab.locator(".node.concept").nth(i).bounding_box() for i in range(48)]
    took = []
    for box in [each for each in boxes if 0 < each["x"] < 900 and each["y"] < 700][:12]:
        before = busy()
        seen.tab.mouse.move(box["x"] + 20, box["y"] + 20)
        seen.tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        took.append(busy() - before)
        assert seen.tab.locator("svg.lit .edge").count() > 0
    assert median(took) <= 50
