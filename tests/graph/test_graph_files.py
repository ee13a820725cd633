"""Graphs as files: JSON that loads again equal, the format of attribution graphs, pictures."""

import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.concept_graphs import graph, illustrated
from support.group_graphs import grouped

from ierf.errors import IerfError
from ierf.graph import Cells, ConceptGraph, left_out, to_neuronpedia


def test_json_loads_again_equal(tmp_path: Path) -> None:
    made = illustrated()
    assert ConceptGraph.load(made.save(tmp_path / "new" / "graph.json")) == made


OF_GROUPS = ("members", "effects", "score", "parent", "opens")


@pytest.mark.parametrize("version", [1, 2])
def test_older_files_have_no_groups_and_the_oldest_no_maps_of_edges(version: int, tmp_path: Path) -> None:
    made = illustrated()
    path = made.save(tmp_path / "graph.json")
    content = json.loads(path.read_text())
    assert content["version"] == 3
    content["version"] = version
    assert content.pop("hierarchy") is None
    for part, names in (("nodes", OF_GROUPS), ("accounts", ("score_held",))):
        for each in content[part]:
            for name in names:
                del each[name]
    if version == 1:
        for edge in content["edges"]:
            del edge["map"]
        made = replace(made, edges=tuple(replace(edge, map=None) for edge in made.edges))
    path.write_text(json.dumps(content))
    assert ConceptGraph.load(path) == made


@pytest.mark.parametrize("pictures", [True, False])
def test_a_graph_of_groups_loads_again_equal_and_opens(pictures: bool, tmp_path: Path) -> None:
    made = grouped(pictures=pictures).opened("b/group4")
    loaded = ConceptGraph.load(made.save(tmp_path / "graph.json"))
    assert loaded == made
    assert loaded.opened("a/group3") == made.opened("a/group3")
    assert loaded.closed("b/group4") == grouped(pictures=pictures)
    assert ConceptGraph.load(made.pruned(0.5, [3]).save(tmp_path / "cut.json")) == made.pruned(0.5, [3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["nodes"][1].update(parent="b/group9"), "parent is 'b/group9', which is no group of its layer"),
        (lambda h: h["nodes"][1].update(parent="a/group0"), "parent is 'a/group0', which is no group of its layer"),
        (lambda h: h["nodes"][1].update(parent=""), "has 1 halves"),
        (lambda h: h["nodes"][1].update(opens=2), "opens is 2, not after its parent's 2"),
        (lambda h: h["nodes"][1].update(opens=0), "no group of its layer that opens"),
        (lambda h: h["nodes"][3].update(opens=9), "'b/0' has 0 halves"),
        (lambda h: h["nodes"].append(h["nodes"][0]), "'b/group0' occurs twice"),
        (lambda h: h["nodes"][0].update(kind="residual"), r"hierarchy.nodes\[0\]"),
        (lambda h: h["nodes"][0].update(id="b/0"), "id is 'b/0', but its layer, kind and index make it 'b/group0'"),
        (lambda h: h["nodes"][0].update(effects=[1.0]), "effects is not for the graph"),
        (lambda h: h["nodes"].pop(), "a/own0|two rows"),
        (lambda h: h["pairs"].pop(), "hierarchy.pairs are 1, not one for each of 2 layers"),
        (lambda h: h["pairs"].reverse(), r"hierarchy.pairs\[0\] is not between the nodes of two rows"),
        (lambda h: h["pairs"][1]["values"].pop(), r"hierarchy.pairs\[1\].values is not 9 × 7"),
        (lambda h: h["pairs"][1]["values"][2].pop(), r"hierarchy.pairs\[1\].values is not 9 × 7"),
        (lambda h: h["pairs"][1]["p_values"].pop(), r"hierarchy.pairs\[1\].p_values is not 8 × 7"),
        (lambda h: h["pairs"][1]["maps"][0].pop(), r"hierarchy.pairs\[1\].maps is not 5 × 4"),
        (lambda h: h["pairs"][1]["maps"][0][0].update(rows=2), r"maps\[0\] has 6 bytes, not 2 × 2"),
        (lambda h: h.pop("pairs"), "pairs"),
        (lambda h: h.update(nodes=7), "hierarchy.nodes is not a list"),
        (lambda h: h.update(surprise=1), "surprise is unknown"),
    ],
)
def test_a_damaged_hierarchy_is_named(change: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    path = grouped().save(tmp_path / "graph.json")
    content = json.loads(path.read_text())
    change(content["hierarchy"])
    path.write_text(json.dumps(content))
    with pytest.raises(IerfError, match=rf"graph.json.*damaged.*({said})"):
        ConceptGraph.load(path)


def test_a_file_may_lack_the_share_of_prefix_tokens(tmp_path: Path) -> None:
    made = illustrated()
    known = replace(made, nodes=tuple(replace(node, prefix_share=0.25) for node in made.nodes))
    path = known.save(tmp_path / "graph.json")
    assert ConceptGraph.load(path) == known
    content = json.loads(path.read_text())
    for node in content["nodes"]:
        assert node.pop("prefix_share") == 0.25
    path.write_text(json.dumps(content))
    assert ConceptGraph.load(path) == made


def test_a_changed_byte_is_not_equal(tmp_path: Path) -> None:
    made = illustrated()
    path = made.save(tmp_path / "graph.json")
    content = json.loads(path.read_text())
    content["edges"][0]["value"] += 1e-9
    path.write_text(json.dumps(content))
    assert ConceptGraph.load(path) != made


@pytest.mark.parametrize("content", ["[]", "{", '{"format": "ierf-concept-graph", "version": 3}', "{}"])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(content)
    with pytest.raises(IerfError, match=r"graph\.json"):
        ConceptGraph.load(path)


def test_a_graph_that_lacks_something_is_refused(tmp_path: Path) -> None:
    path = graph().save(tmp_path / "graph.json")
    content = json.loads(path.read_text())
    del content["nodes"][0]["importance"]
    path.write_text(json.dumps(content))
    with pytest.raises(IerfError, match="damaged"):
        ConceptGraph.load(path)
    with pytest.raises(IerfError, match="cannot read"):
        ConceptGraph.load(tmp_path / "missing.json")
    with pytest.raises(IerfError, match="form of a graph"):
        graph().save(tmp_path / "graph.txt")


def test_maps_are_kept_within_half_a_step() -> None:
    values = torch.randn(12, 20, generator=torch.Generator().manual_seed(1))
    again = Cells.of(values)
    assert float((again.tensor() - values).abs().max()) <= again.scale / 2 * 1.001
    large = torch.rand(128, 128, generator=torch.Generator().manual_seed(2))
    assert Cells.of(large).tensor().shape == (64, 64)
    assert float(Cells.of(large).tensor().sum()) == pytest.approx(float(large.sum()), rel=1e-2)
    assert Cells.of(large[:, :64], side=16).tensor().shape == (16, 8)
    assert Cells.of(large[:7, :7], side=16).tensor().shape == (7, 7)


def test_the_form_of_attribution_graphs() -> None:
    made = to_neuronpedia(graph())
    names = {node["node_id"] for node in made["nodes"]}
    assert len(names) == len(graph().nodes)
    assert {end for link in made["links"] for end in (link["source"], link["target"])} <= names
    assert {"source": "1_0_0", "target": "3_3_0", "weight": 0.5} in made["links"]
    kinds = {node["node_id"]: node["feature_type"] for node in made["nodes"]}
    assert kinds["1_0_0"] == "cross layer transcoder"
    assert kinds["0_-1_0"] == "mlp reconstruction error"
    assert kinds["3_8_0"] == "logit"
    paired = {node["node_id"]: node["feature"] for node in made["nodes"]}
    assert paired["0_5_0"] == 20
    assert paired["1_1_0"] == 4
    assert json.loads(json.dumps(made)) == made


def test_opening_a_pruned_graph_brings_back_what_was_dropped() -> None:
    whole, cut = grouped(), grouped().pruned(0.3)
    dropped = {node.id for node in whole.nodes} - {node.id for node in cut.nodes}
    assert dropped
    again = cut.opened(next(node.id for node in cut.nodes if node.opens))
    for target in again.nodes:
        into = again.into(target.id)
        assert not into or sum(edge.share for edge in into) == pytest.approx(1, abs=1e-9)
    assert again.account("a").influence_kept + again.account("a").influence_residual == pytest.approx(
        again.account("b").influence_kept, abs=1e-6
    )


def test_what_is_drawn_is_of_the_hierarchy_and_once(tmp_path: Path) -> None:
    path = grouped().save(tmp_path / "graph.json")
    for change, said in (
        (lambda node: node.update(id="b/11", kind="concept", index=11), "'b/11', which is no part of the hierarchy"),
        (
            lambda node: node.update(id="b/0", kind="concept", index=0),
            "'b/0', which 'b/group1' holds, and is drawn too",
        ),
    ):
        content = json.loads(path.read_text())
        content["edges"] = []
        change(next(node for node in content["nodes"] if node["id"] == "b/group4"))
        (tmp_path / "damaged.json").write_text(json.dumps(content))
        with pytest.raises(IerfError, match=said):
            ConceptGraph.load(tmp_path / "damaged.json")


def test_groups_are_supernodes_of_what_they_hold() -> None:
    made = to_neuronpedia(grouped())
    names = [node["node_id"] for node in made["nodes"]]
    assert len(set(names)) == len(names)
    assert len({node["jsNodeId"] for node in made["nodes"]}) == len(names)
    assert {end for link in made["links"] for end in (link["source"], link["target"])} <= set(names)
    # Of a layer of 16 concepts, group5 has the number 21 and the own direction 0 the number 48.
    finest = {"1_0_0", "1_1_0", "1_2_0", "1_21_0", "0_7_0", "0_8_0", "0_9_0", "0_10_0", "0_48_0"}
    assert set(names) == finest | {"3_3_0", "3_8_0", "1_-1_0", "0_-1_0"}
    assert {(label, *sorted(some)) for label, *some in made["qParams"]["supernodes"]} == {
        ("6 concepts", "1_0_0", "1_1_0"),
        ("6 concepts", "1_21_0", "1_2_0"),
        ("9 concepts", "0_10_0", "0_8_0", "0_9_0"),
    }
    assert to_neuronpedia(graph())["qParams"]["supernodes"] == []


def test_the_page_of_a_graph_of_groups_has_everything_once(tmp_path: Path) -> None:
    made = grouped()
    text = made.save(tmp_path / "graph.html", single_file=True).read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    found = data["graphs"][0]
    ids = [node["id"] for node in found["nodes"]]
    assert len(set(ids)) == len(ids)
    assert made.hierarchy is not None
    assert set(ids) == {node.id for node in (*made.hierarchy.nodes, *made.nodes)}
    assert found["edges"] == []
    assert found["hierarchy"]["shown"] == [node.id for node in made.nodes if node.id in made.hierarchy.by_id]
    block = zlib.decompress(b64decode(data["cells"]))
    for pair, other in zip(found["hierarchy"]["pairs"], made.hierarchy.pairs, strict=True):
        table, size = pair["maps"], len(other.maps[0][0].content)
        cells = b"".join(each.content for row in other.maps for each in row)
        assert block[table["start"] : table["start"] + len(cells)] == cells
        assert (table["rows"] * table["columns"], len(table["scales"])) == (size, len(other.maps))


def test_what_a_graph_of_groups_leaves_out_is_the_residual() -> None:
    said = " ".join(left_out(grouped()))
    assert "nothing is left out but the residual" in said
    assert "The groups of a are subtrees of the tree of splits that bisecting k-means has left." in said
    assert "The groups of b are subtrees of the tree that clusters concepts by cosine." in said
    # Effects by hand are half of the claims, and the second class gained 1.4 of what its parts sum to.
    inner = sum(node.kind not in ("class", "residual") for node in grouped().nodes)
    assert f"{2 * inner} of {2 * inner} claims have the sign of their effect" in said
    assert "at b (1.00 × class 3, 1.40 × class 8); a (1.00 × class 3, 1.40 × class 8)" in said
    assert "to concepts that are not shown" not in said
    pruned = " ".join(left_out(grouped().pruned(0.5)))
    assert "nothing is left out" not in pruned
    assert "carry 50 % of the flow there, are drawn at first" in pruned


def test_the_picture_of_a_graph_of_groups_shows_every_node(tmp_path: Path) -> None:
    made = grouped().opened("a/group3")
    drawn = ElementTree.fromstring(made.save(tmp_path / "graph.svg").read_text())
    cards = [e.get("class") for e in drawn.iter("{http://www.w3.org/2000/svg}g") if "card" in e.get("class", "")]
    assert sorted(map(str, cards)) == sorted(f"card {node.kind}" for node in made.nodes)


def test_the_picture_shows_every_node_and_edge_once(tmp_path: Path) -> None:
    made = illustrated()
    drawn = ElementTree.fromstring(made.save(tmp_path / "graph.svg").read_text())
    svg = "{http://www.w3.org/2000/svg}"
    cards = [e for e in drawn.iter(f"{svg}g") if e.get("class", "").startswith("card")]
    assert len(cards) == len(made.nodes)
    corners = {e.get("transform") for e in cards}
    assert len(corners) == len(cards)
    edges = {e.findtext(f"{svg}title"): e for e in drawn.iter(f"{svg}path") if "edge" in e.get("class", "")}
    assert len(edges) == len(made.edges)
    against = [title for title, e in edges.items() if "against" in e.get("class", "")]
    assert against
    assert all(str(title).startswith("a/5") for title in against)
    widths = {e.get("stroke-width") for e in edges.values()}
    assert len(widths) > 2
    images = list(drawn.iter(f"{svg}image"))
    assert len(images) == 2 * sum(node.kind == "concept" for node in made.nodes)
    assert all(e.get("href", "").startswith("data:image/") for e in images)


def test_a_share_below_a_thousandth_is_drawn_as_text(tmp_path: Path) -> None:
    made = illustrated()
    made = replace(
        made,
        nodes=tuple(replace(node, influence=1e-5, activation=1e-5) for node in made.nodes),
        edges=tuple(replace(edge, share=1e-5) for edge in made.edges),
        accounts=tuple(replace(account, influence_residual=1e-5) for account in made.accounts),
    )
    drawn = ElementTree.fromstring(made.save(tmp_path / "graph.svg").read_text())
    texts = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("< 0.1 % to the residual") == len(made.layers)
    assert texts.count("< 0.1 % of the layer") == sum(node.kind == "residual" for node in made.nodes)


def test_a_card_says_what_its_map_cannot_show(tmp_path: Path) -> None:
    made = illustrated()
    shares = {"b/0": 0.834, "b/1": 0.009, "a/4": 0.0}
    made = replace(made, nodes=tuple(replace(n, prefix_share=shares.get(n.id, 0.0)) for n in made.nodes))
    drawn = ElementTree.fromstring(made.save(tmp_path / "graph.svg").read_text())
    svg = "{http://www.w3.org/2000/svg}"
    said = {
        e.findtext(f"{svg}title", "").split(":")[0]: [t.text for t in e.iter(f"{svg}text")]
        for e in drawn.iter(f"{svg}g")
    }
    assert said["b/0"] == ["#0", "83 % prefix tokens"]
    assert said["b/1"] == ["#1"]
    assert sum("prefix" in title for title in (e.text or "" for e in drawn.iter(f"{svg}title"))) == 1


def test_concepts_of_several_photographs_have_twice_as_many_exemplars(tmp_path: Path) -> None:
    made = illustrated()
    nodes = tuple(replace(node, map=None, exemplars=2 * node.exemplars) for node in made.nodes)
    pictures = {}
    for name, some in (("eight", nodes), ("four", tuple(replace(n, exemplars=n.exemplars[:4]) for n in nodes))):
        drawn = ElementTree.fromstring(replace(made, view=b"", nodes=some).save(tmp_path / f"{name}.svg").read_text())
        pictures[name] = len(list(drawn.iter("{http://www.w3.org/2000/svg}image")))
    assert pictures["eight"] == 2 * pictures["four"] > 0


def test_the_page_fetches_nothing_and_says_what_is_left_out(tmp_path: Path) -> None:
    made = replace(illustrated(), photo="<script>alert(1)</script>")
    text = made.save(tmp_path / "graph.html", single_file=True).read_text(encoding="utf-8")
    assert text.count("<script") == 2
    assert not re.findall(r"(?:src|href)=\S{0,2}https?:|@import|url\(", text)
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["title"].startswith("<script>alert(1)</script>: ")
    assert data["leftOut"] == left_out(made)
    assert not list(tmp_path.glob("*_pictures"))


def test_a_page_has_the_cells_of_all_maps_in_one_block(tmp_path: Path) -> None:
    made = illustrated()
    text = made.save(tmp_path / "graph.html").read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    block = zlib.decompress(b64decode(data["cells"]))
    nodes = {node["id"]: node for node in data["graphs"][0]["nodes"]}
    for node in made.nodes:
        for cells, at in ((node.map, nodes[node.id]["map"]), (node.ierf, nodes[node.id]["ierf"])):
            assert (cells is None) == (at is None)
            if cells is not None:
                assert block[at["start"] : at["start"] + at["rows"] * at["columns"]] == cells.content
        for number, content in zip(nodes[node.id]["exemplars"], node.exemplars, strict=True):
            assert (tmp_path / data["pictures"][number]).read_bytes() == content
    assert len(set(data["pictures"])) == len(data["pictures"])


def test_a_graph_without_concepts_says_why_and_what_helps() -> None:
    whole = graph().pruned(0.9)
    nodes = tuple(node for node in whole.nodes if node.kind != "concept")
    silent = replace(whole, nodes=nodes, accounts=tuple(replace(a, active=0.0) for a in whole.accounts))
    said = left_out(silent)[0]
    assert said.startswith(f"No concept of {', '.join(whole.layers)} is in a PFV here")
    assert "l0_ratio" in said
    unwanted = replace(whole, nodes=nodes, accounts=tuple(replace(a, active=3.0) for a in whole.accounts))
    assert "speak for none of the classes" in left_out(unwanted)[0]
    assert "is in a PFV" not in " ".join(left_out(whole))
