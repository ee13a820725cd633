"""The page of concept cards."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from support.banks import bank as bank_by_hand
from support.banks import layer

import ierf
from ierf.concepts import ConceptBank
from ierf.concepts.bank_files import BankPlan, StoreRecord
from ierf.report.concepts import chosen, save_concepts


class Elements(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> ConceptBank:
    return bank_by_hand(monkeypatch)


def test_which_concepts(bank: ConceptBank) -> None:
    concepts = bank.layer("b")
    assert chosen(concepts, "frequency", 3) == [1, 4, 2]
    assert chosen(concepts, "relevance", 2) == [0, 4]
    one, other = (chosen(concepts, "random", 9, seed) for seed in (0, 1))
    assert sorted(one) == sorted(other) == list(range(6))
    assert one != other
    assert one == chosen(concepts, "random", 9, 0)


def test_the_page_and_its_pictures(bank: ConceptBank, tmp_path: Path) -> None:
    page = save_concepts(bank, tmp_path / "page.html", order="relevance", limit=2).read_text()
    elements = Elements(page)
    cards = elements.all("article")
    assert [card["id"] for card in cards] == ["a.0/0", "a.0/4", "b/0", "b/4"]
    assert cards[0]["data-words"] == "0 #0 cup bee & wasp"
    assert cards[1]["data-words"] == "4 #4 class 9"
    pictures = elements.all("img")
    assert len(pictures) == 4 * 3
    for number, picture in enumerate(pictures):
        assert picture["src"] is not None
        assert picture["alt"] is not None
        card, place = divmod(number, 3)
        concept = (0, 4)[card % 2]
        colour = np.asarray(Image.open(tmp_path / unquote(picture["src"])).convert("RGB")).mean((0, 1))
        assert np.abs(colour - (40 * concept, 80 * place, 9)).max() < 12
        cosine = bank.layer("b").cosines[concept, place]
        assert (
            picture["alt"]
            == f"Exemplar {place + 1} of concept {concept} of {('a.0', 'b')[card // 2]}, cosine {cosine:.2f}"
        )
    assert "a &lt;model&gt;" in page
    assert "<model>" not in page
    assert "75.0 %" in page
    assert "1.5 concepts to a PFV" in page


def test_links_lead_to_cards_and_nothing_is_fetched(bank: ConceptBank, tmp_path: Path) -> None:
    page = save_concepts(bank, tmp_path / "page.html", layers=["b"], limit=4).read_text()
    elements = Elements(page)
    anchors = {card["id"] for card in elements.all("article")}
    links = [unquote((link["href"] or "")[1:]) for link in elements.all("a")]
    assert links
    assert set(links) <= anchors
    assert not re.findall(r"https?://", page)
    tabs = [button for button in elements.all("button") if button.get("role") == "tab"]
    panels = [section["id"] for section in elements.all("section") if section.get("role") == "tabpanel"]
    assert [tab["aria-controls"] for tab in tabs] == panels
    assert elements.all("input")[0]["aria-label"]


def test_neighbours_by_cosine_and_in_the_tree(bank: ConceptBank, tmp_path: Path) -> None:
    page = save_concepts(bank, tmp_path / "page.html", layers=["b"], limit=6).read_text()
    card = page.split('id="b/1"')[1].split("</article>")[0]
    nearest = bank.layer("b").nearest(1, 4)
    written = re.findall(r"#(\d+)</a> (-?\d\.\d\d)", card)
    assert written == [(str(index), f"{cosine:.2f}") for index, cosine in nearest]
    tree = card.split("in the tree:")[1]
    assert [int(index) for index in re.findall(r">#(\d+)<", tree)] == [0, 2, 3, 4]


def test_a_bank_without_pictures_is_an_error(tmp_path: Path) -> None:
    store = StoreRecord(None, 45, "", "srd", {}, {})
    plan = BankPlan({"name": "m"}, None, store, "bisecting", {}, 6, 0, 0.75, False, None, {}, ("b",))
    with pytest.raises(ierf.IerfError, match="published without its store"):
        save_concepts(ConceptBank(plan, {"b": layer("b")}), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
