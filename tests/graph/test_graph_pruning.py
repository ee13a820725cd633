"""Following the classes' scores down: conservation, the fewest edges, and what pruning says of itself."""

import pytest
import torch
from support.concept_graphs import graph

from ierf.errors import IerfError
from ierf.graph.concept_graph import edge_flows, influences, prune, strongest


def _columns_sum_to_one(sources: int, targets: int, seed: int) -> torch.Tensor:
    shares = torch.rand(sources, targets, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return shares / shares.sum(0)


def test_flow_is_conserved_where_everything_is_shown() -> None:
    shares = [_columns_sum_to_one(5, 2, 0), _columns_sum_to_one(7, 5, 1), _columns_sum_to_one(3, 7, 2)]
    start = torch.tensor([0.3, 0.7], dtype=torch.float64)
    for flow in influences(shares, start):
        assert float(flow.sum()) == pytest.approx(1, abs=1e-12)
    for flows in edge_flows(shares, start):
        assert float(flows.sum()) == pytest.approx(1, abs=1e-12)


def test_nothing_is_followed_below_a_residual() -> None:
    """Two concepts and a residual; the pair below has the two concepts as its only targets."""
    top = torch.tensor([[0.5], [0.3], [0.2]])
    below = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(influences([top, below], torch.ones(1))[-1], torch.tensor([0.5, 0.3]))


def test_influence_is_the_sum_over_all_paths() -> None:
    shares = [_columns_sum_to_one(3, 2, 4), _columns_sum_to_one(4, 3, 5)]
    start = torch.tensor([0.4, 0.6], dtype=torch.float64)
    paths = [
        sum(float(shares[1][s, m] * shares[0][m, t] * start[t]) for m in range(3) for t in range(2)) for s in range(4)
    ]
    assert influences(shares, start)[-1].tolist() == pytest.approx(paths, abs=1e-12)


def test_the_fewest_values_are_kept() -> None:
    values = torch.tensor([[0.1, 0.4], [0.0, 0.3], [0.15, 0.05]])
    assert strongest(values, 0.69).tolist() == [[False, True], [False, True], [False, False]]
    assert strongest(values, 0.72).sum() == 3
    assert strongest(values, 1.0).sum() == 5
    assert not strongest(torch.zeros(3), 0.9).any()


def test_pruning_keeps_the_share_it_promises() -> None:
    shares = [_columns_sum_to_one(6, 2, 7), _columns_sum_to_one(8, 6, 8)]
    start = torch.tensor([0.5, 0.5], dtype=torch.float64)
    for keep in (0.5, 0.8, 0.95):
        flows = influences(prune(shares, start, keep, [6, 8]), start)
        assert keep <= float(flows[1].sum()) <= 1
        assert keep**2 <= float(flows[2].sum()) <= float(flows[1].sum())
    assert all(torch.equal(a, b) for a, b in zip(prune(shares, start, 1.0, [6, 8]), shares, strict=True))


def test_the_graph_states_what_is_left() -> None:
    whole = graph().pruned(1.0)
    flow = {node.id: node.influence for node in whole.nodes}
    assert flow["b/0"] == pytest.approx(0.5 * 0.5 + 0.5 * 0.1)
    assert flow["b/1"] == pytest.approx(0.5 * 0.2 + 0.5 * 0.7)
    assert flow["a/4"] == pytest.approx(0.6 * 0.3 + 0.25 * 0.45)
    assert whole.account("b").influence_kept == pytest.approx(0.75)
    assert whole.account("b").influence_residual == pytest.approx(0.075)
    assert whole.account("a").influence_kept == pytest.approx(0.3 * 0.7 + 0.45 * 0.75)
    assert whole.account("b").score_kept == pytest.approx((0.8, 0.6))


def test_weak_edges_and_their_nodes_go_and_the_shares_say_so() -> None:
    """The edges to the classes carry 0.35, 0.25, 0.1 and 0.05 of the flow: the first two are 80 % of it."""
    small = graph().pruned(0.79)
    assert {(e.source, e.target) for e in small.edges if e.source in ("b/0", "b/1")} == {
        ("b/1", "logits/8"),
        ("b/0", "logits/3"),
    }
    assert small.account("b").influence_kept == pytest.approx(0.6)
    assert small.account("b").influence_residual == pytest.approx(0.075)
    assert small.account("a").influence_residual == pytest.approx(0.25 * 0.2 + 0.35 * 0.1)
    kept = {(e.source, e.target) for e in small.edges if e.source in ("a/4", "a/5")}
    assert kept == {("a/5", "b/1"), ("a/4", "b/0"), ("a/4", "b/1")}


def test_residuals_keep_their_edges() -> None:
    residuals = {e for e in graph().edges if e.source.endswith("residual")}
    assert residuals <= set(graph().pruned(0.79).edges)


def test_every_edge_that_is_left_has_both_of_its_nodes() -> None:
    """Of one edge to the classes: b/0 goes with all edges that end at it, those of residuals too."""
    small = graph().pruned(0.1)
    assert {end for e in small.edges for end in (e.source, e.target)} <= set(small.by_id)
    assert "b/0" not in small.by_id


def test_one_class_of_two() -> None:
    route = graph().pruned(0.5, [3])
    assert [node.id for node in route.classes] == ["logits/3"]
    assert all(len(node.importance) == 1 for node in route.nodes)
    assert route.node("b/0").influence == pytest.approx(0.5)
    assert "b/1" not in route.by_id
    assert route.account("b").score_kept == pytest.approx((0.8 * 2 / 3,))
    assert route.account("b").logits == (3.9,)


def test_no_share_of_nothing() -> None:
    with pytest.raises(IerfError, match="above 0"):
        graph().pruned(0.0)
    with pytest.raises(IerfError, match="no node"):
        graph().pruned(0.5, [4])
