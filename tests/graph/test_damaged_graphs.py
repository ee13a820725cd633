"""Damaged graphs: a sentence that names file and field, or the same graph."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.concept_graphs import illustrated
from support.damage import silent

from ierf.errors import IerfError
from ierf.graph import ConceptGraph


def test_damaged_graphs(tmp_path: Path) -> None:
    illustrated().save(tmp_path / "graph" / "graph.json")

    def read(path: Path) -> ConceptGraph:
        return ConceptGraph.load(path / "graph.json")

    # numbers and words have no second copy in the file: other ones of the right type are another graph
    found, refused = silent(tmp_path / "graph", read, every=2)
    assert not [one for one in found if "another result" not in one], "\n".join(found)
    assert refused > 150


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["nodes"].append(c["nodes"][-1]), "occurs twice"),
        (lambda c: c["edges"].append(c["edges"][-1]), "occurs twice"),
        (lambda c: c["edges"][0].update(source="nobody/1"), r"edges\[0\] has the end 'nobody/1'"),
        (lambda c: c["nodes"][0].update(id="other"), r"nodes\[0\].id is 'other'"),
        (lambda c: c["nodes"][-1].update(importance=[]), "importance is not for"),
        (lambda c: c["nodes"][-1].update(activation=float("nan")), "it has NaN"),
        (lambda c: c.update(view="aGVsbG8="), "view is no picture"),
        (lambda c: c.update(view="!"), "view is '!', not base64"),
        (lambda c: c["accounts"].pop(), "accounts"),
        (lambda c: c.update(surprise=1), "surprise is unknown"),
        (lambda c: [n["map"].update(rows=-8, columns=-8) for n in c["nodes"] if n["map"]], "map has 64 bytes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: Any, said: str) -> None:
    path = illustrated().save(tmp_path / "graph.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(IerfError, match=rf"graph.json.*{said}"):
        ConceptGraph.load(path)
