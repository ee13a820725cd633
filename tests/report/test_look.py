"""One look: reports, concept cards, the page of a graph and that of the server are made of the same parts."""

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.banks import bank as bank_by_hand
from support.page_graphs import small

import ierf
from ierf.graph.picture.drawing import _STYLE
from ierf.report.components import resource
from ierf.report.concepts import save_concepts

TEXT = ("--ink", "--soft", "--accent")
PAIRS = (("--for", "--against"), *combinations(("--c0", "--c1", "--c2", "--c3"), 2))
DEFICIENCIES = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB."""
STYLES = """([selector, names]) => { const found = document.querySelector(selector);
return found && Object.fromEntries(names.map((name) => [name, getComputedStyle(found)[name]])); }"""
PARTS = {
    ".bar": ["height", "backgroundColor", "borderRadius"],
    ".bar:not(.both) i": ["backgroundColor"],
    ".eyebrow": ["color", "fontFamily", "fontSize"],
    ".number": ["color", "fontSize", "fontVariantNumeric"],
    ".crops img": ["borderRadius", "aspectRatio", "objectFit"],
    ".facts": ["display", "fontSize"],
    ".facts dt": ["color"],
    ".concept .bars li": ["gridTemplateRows", "columnGap"],
    "h4": ["fontSize", "marginTop"],
    "body": ["backgroundColor", "color", "fontFamily"],
    "input[type=search]": ["backgroundColor", "borderRadius", "paddingLeft"],
}
"""Of each, what has to be the same wherever it is."""


@pytest.fixture(scope="module")
def pages(explanation: ierf.Explanation, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    made = tmp_path_factory.mktemp("look")
    with pytest.MonkeyPatch.context() as patch:
        concepts = save_concepts(bank_by_hand(patch), made / "concepts.html")
    return SimpleNamespace(
        concepts=concepts, graph=small().save(made / "graph.html"), report=explanation.save(made / "report.html")
    )


def seen(browser: Any, path: Path, scheme: str, view: str = "") -> Any:
    tab = browser.new_page(color_scheme=scheme, viewport={"width": 1366, "height": 768})
    tab.goto(f"{path.as_uri()}{view}")
    return tab


@pytest.fixture(params=["light", "dark"])
def tabs(request: pytest.FixtureRequest, browser: Any, pages: SimpleNamespace) -> Iterator[dict[str, Any]]:
    opened = {
        "concepts": seen(browser, pages.concepts, request.param),
        "graph": seen(browser, pages.graph, request.param, "#node=b%2F0"),
        "report": seen(browser, pages.report, request.param),
    }
    opened["graph"].wait_for_selector(".concept .bars .number")
    yield opened
    for tab in opened.values():
        tab.close()


def test_parts_look_the_same_on_every_page(tabs: dict[str, Any]) -> None:
    for selector, names in PARTS.items():
        styles = {name: tab.evaluate(STYLES, [selector, names]) for name, tab in tabs.items()}
        known = {name: style for name, style in styles.items() if style is not None}
        assert len(known) >= 2, selector
        first = next(iter(known.values()))
        assert all(style == first for style in known.values()), (selector, known)


def test_a_concept_has_the_same_card_in_its_bank_and_in_a_graph(tabs: dict[str, Any]) -> None:
    cards = tabs["concepts"].locator('[id="a.0/0"]'), tabs["graph"].locator("section.concept")
    in_bank, in_graph = (card.locator(".facts dt").all_inner_texts() for card in cards)
    assert in_bank == ["in all photographs", "mean coefficient there", "of the layer’s relevance"]
    assert [name for name in in_graph if name in in_bank] == in_bank
    for card in cards:
        assert "Predicted classes where it is" in card.locator("h4").all_inner_texts()
        assert card.locator(".crops img").count() >= 3
        assert card.locator(".near").inner_text().startswith("nearest: ")


def test_text_can_be_read_and_colours_told_apart_with_any_colour_vision(tabs: dict[str, Any]) -> None:
    colours = tabs["graph"].evaluate(
        "(names) => Object.fromEntries(names.map((n) => [n, getComputedStyle(document.documentElement)"
        ".getPropertyValue(n).trim()]))",
        ["--paper", "--card", *TEXT, *{name for pair in PAIRS for name in pair}],
    )
    linear = {name: _linear(colour) for name, colour in colours.items()}
    for text in TEXT:
        for ground in ("--paper", "--card"):
            assert _contrast(linear[text], linear[ground]) >= 4.5, (text, ground)
    for pair in PAIRS:
        for name, matrix in {"usual": np.eye(3), **DEFICIENCIES}.items():
            one, other = (_lab(np.clip(np.asarray(matrix) @ linear[each], 0, 1)) for each in pair)
            assert np.linalg.norm(one - other) >= 20, (name, pair)


def test_a_graphs_svg_has_the_colours_of_the_pages() -> None:
    names = ("for", "against", "c0", "c1", "c2", "c3")
    of = {
        style: {name: re.findall(rf"--{name}:\s*(#\w+)", text) for name in names}
        for style, text in (("svg", _STYLE), ("look", resource("look.css")))
    }
    assert of["svg"] == of["look"]
    assert all(len(set(colours)) == 2 for colours in of["look"].values())


def test_the_styles_have_one_source(pages: SimpleNamespace) -> None:
    shared = resource("look.css").strip()
    for path in (pages.concepts, pages.report):
        assert shared in path.read_text(encoding="utf-8")
    for name in ("report.css", "concepts.css"):
        assert not [part for part in (":root", "--paper:", ".bar {", ".crops {", ".facts {") if part in resource(name)]


def _linear(colour: str) -> np.ndarray:
    digits = colour.lstrip("#")
    digits = "".join(2 * each for each in digits) if len(digits) == 3 else digits
    values = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _contrast(one: np.ndarray, other: np.ndarray) -> float:
    """WCAG 2: `(L₁ + 0.05) / (L₂ + 0.05)`."""
    dark, light = sorted(float(colour @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / (0.9505, 1.0, 1.089), 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
