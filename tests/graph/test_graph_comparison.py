"""Two graphs side by side."""

from dataclasses import replace

import pytest
from support.concept_graphs import graph, without

from ierf.errors import IerfError
from ierf.graph import Cells, compare, sentence


def test_a_graph_does_not_differ_from_itself() -> None:
    same = compare(graph(), graph(), least=0.0)
    assert same.nodes == ()
    assert same.edges == ()


def test_what_appeared_vanished_when_seen_from_the_other_side() -> None:
    there, back = compare(without(graph(), "b/1"), graph()), compare(graph(), without(graph(), "b/1"))
    assert [(change.status, change.name) for change in there.nodes] == [("appeared", "b/1")]
    assert [(change.status, change.name) for change in back.nodes] == [("vanished", "b/1")]
    assert {change.name for change in there.edges} == {
        "b/1 → logits/3", "b/1 → logits/8", "a/4 → b/1", "a/5 → b/1", "a/residual → b/1",
    }  # fmt: skip
    assert [-change.after + change.before for change in there.edges] == pytest.approx(
        [change.after - change.before for change in back.edges]
    )


def test_growth_is_measured_against_the_layer() -> None:
    """b/0 falls from 2.0 to 1.0 of at most 2.0 in its layer; a/5 grows from 0.75 to 0.8 of 0.8."""
    values = {"b/0": (1.0, -0.5), "a/5": (-0.5, 0.8)}
    nodes = tuple(replace(n, importance=values.get(n.id, n.importance)) for n in graph().nodes)
    found = compare(graph(), replace(graph(), nodes=nodes))
    assert [(change.status, change.name) for change in found.nodes] == [("shrank", "b/0"), ("grew", "a/5")]
    assert [change.size for change in found.nodes] == pytest.approx([0.5, 0.0625])
    assert [c.name for c in compare(graph(), replace(graph(), nodes=nodes), least=0.1).nodes] == ["b/0"]


def test_what_changes_its_sign_has_turned() -> None:
    nodes = tuple(replace(n, importance=(-2.0, -2.0)) if n.id == "b/0" else n for n in graph().nodes)
    (change, *_) = compare(graph(), replace(graph(), nodes=nodes)).nodes
    assert (change.status, change.before, change.after) == ("turned", 2.0, -2.0)


def test_a_graph_is_printed_in_a_line() -> None:
    assert repr(graph()).startswith("ConceptGraph(")
    assert len(repr(graph())) < 300
    assert "content" not in repr(Cells(1, 1, 1.0, b"x"))


def test_a_concept_without_coefficients_is_not_there() -> None:
    nodes = tuple(replace(n, activation=0.0) if n.id == "a/4" else n for n in graph().nodes)
    assert [(c.status, c.name) for c in compare(graph(), replace(graph(), nodes=nodes)).nodes] == [("vanished", "a/4")]


def test_graphs_of_different_models_are_refused() -> None:
    with pytest.raises(IerfError, match="different models"):
        compare(graph(), replace(graph(), model="another"))


def test_a_change_in_a_sentence_names_classes_and_has_real_minus_signs() -> None:
    edges = tuple(replace(e, value=-3.0) if e.source == "b/1" else e for e in graph().edges)
    (change, *_) = compare(graph(), replace(graph(), edges=edges)).edges
    said = sentence(change, {"logits/3": "tabby", "logits/8": "fox"})
    assert said.startswith(("b/1 → tabby ", "b/1 → fox "))
    assert "−3.00" in said
    assert "-" not in said
