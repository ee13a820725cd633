"""Groups as nodes: cuts of a tree by hand, sums over members, scores that add up, opening, taking out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.small_bank import CHANNELS, Linear, SmallBank, SmallConcepts, bank, model, photograph
from torch.nn.functional import normalize

from ierf.concepts import ConceptTree, lasso, refit
from ierf.errors import IerfError
from ierf.graph import ConceptGraph, compare_photographs, diagnose, intervene, stability
from ierf.graph.building.layer_edges import alike, drawn_values, random_groups
from ierf.graph.building.tree_cut import cut_tree

PLAIN: dict[str, Any] = {"nodes": "groups", "pictures": False, "draws": 0}


def tree() -> ConceptTree:
    """((0, 1), (2, (3, 4)))."""
    return ConceptTree(torch.tensor([-1, 0, 0, 1, 1, 2, 2, 6, 6]), torch.ones(9).long(), torch.tensor([3, 4, 5, 7, 8]))


def loose(seed: int = 0, count: int = 12) -> SmallBank:
    """More concepts than channels, and a λ that leaves a residual."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, count, CHANNELS, generator=generator, dtype=torch.float64)
    shift = 0.2 * torch.ones(CHANNELS, dtype=torch.float64)
    return SmallBank({"a": SmallConcepts("a", a, shift, lam=0.3), "b": SmallConcepts("b", b, -shift, lam=0.1)})


def built(of: SmallBank, x: torch.Tensor, budget: int = 4, **options: Any) -> ConceptGraph:
    return ConceptGraph.build(model(gate=True), of, x, [0, 2], budget=budget, **(PLAIN | options))  # type: ignore[arg-type]


def table(graph: ConceptGraph) -> dict[tuple[str, str], float]:
    assert graph.hierarchy is not None
    return {
        (s, t): value
        for pair in graph.hierarchy.pairs
        for s, row in zip(pair.sources, pair.values, strict=True)
        for t, value in zip(pair.targets, row, strict=True)
    }


def test_the_group_that_hides_most_is_split_first() -> None:
    """Concepts 3 and 4 cancel: their group holds 8 and hides 16, all others hide what they hold."""
    relevance = torch.tensor([[1.0, 1, 1, 4, -4]])
    found = cut_tree(tree(), torch.arange(5), relevance, most=5)
    assert found.groups(1) == [0]
    assert found.groups(2) == [1, 2]
    assert found.groups(3) == [1, 5, 6]
    assert found.groups(4) == [1, 5, 7, 8]
    assert found.finest == [3, 4, 5, 7, 8]
    assert found.members[6] == (3, 4)


def test_a_half_without_an_active_concept_is_no_group() -> None:
    found = cut_tree(tree(), torch.tensor([0, 3, 4]), torch.ones(1, 5), most=9)
    assert found.finest == [3, 7, 8]
    assert found.groups(2) == [3, 6]
    assert found.members[0] == (0, 3, 4)


def test_classes_count_the_same_whatever_their_logits() -> None:
    """The second class alone needs 0 and 1 apart, and its numbers are a thousandth."""
    relevance = torch.tensor([[1.0, 1, 3, 3, 3], [0.004, -0.004, 0.001, 0, 0]])
    assert cut_tree(tree(), torch.arange(5), relevance, most=3).groups(3) == [3, 4, 2]


def test_edges_of_groups_are_the_sums_over_their_members() -> None:
    """With a budget of every concept each is its own node; groups add these up at both ends."""
    of, x = loose(), photograph()
    single = table(built(of, x, budget=30))
    graph = built(of, x, budget=2)
    assert graph.hierarchy is not None
    seen = 0
    for (s, t), value in table(graph).items():
        sources, targets = ([name] if name not in graph.hierarchy.by_id else _concepts(graph, name) for name in (s, t))
        expected = sum(single[a, b] for a in sources for b in targets)
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-7)
        seen += len(sources) > 1 and len(targets) > 1
    assert seen


def _concepts(graph: ConceptGraph, name: str) -> list[str]:
    assert graph.hierarchy is not None
    node = graph.hierarchy.by_id[name]
    return [f"{node.layer}/{k}" for k in node.members] if node.kind == "group" else [name]


@pytest.mark.parametrize("refitted", [True, False])
def test_groups_and_residual_add_up_to_the_networks_own_scores(refitted: bool) -> None:
    """`Σ edges = S(X) − S(shift)` of every target, with S by its definition; classes hold their logits in every row."""
    of, x, net = loose(), photograph(), Linear(gate=True).double()
    graph = built(of, x, refit=refitted)
    assert graph.hierarchy is not None
    a, b = of.layer("a"), of.layer("b")
    pfvs = net(x, "b")[0].flatten(1).T.detach() - b.shift
    chosen = lasso(pfvs, b.atoms, b.lam)
    codes = (refit(pfvs, b.atoms, chosen) if refitted else chosen).codes
    from_shift = net.b(net.gate(a.shift.view(1, -1, 1, 1))).flatten().detach() - b.shift
    fine = [name for name in graph.hierarchy.by_id if not graph.hierarchy.halves[name]]
    values = table(graph)
    for node in graph.hierarchy.nodes:
        if node.layer == "b":
            members = [int(name.partition("/")[2]) for name in _concepts(graph, node.id)]
            directions = codes[:, members] @ normalize(b.atoms[members])
            score = [(normalize(v.expand_as(pfvs)) * directions).sum() for v in (from_shift, pfvs)]
            assert node.score == pytest.approx(tuple(map(float, score)), abs=1e-9)
            total = sum(values[s, node.id] for s in (*fine, "a/residual") if (s, node.id) in values)
            assert total == pytest.approx(float(score[1] - score[0]), rel=1e-3)
    logits = net(x)[0].detach()
    ends = {"a": net.b(net.gate(a.shift.view(1, -1, 1, 1))), "b": b.shift.view(1, -1, 1, 1)}
    for layer, pixel in ends.items():
        change = logits - net.head(pixel.flatten().detach()).detach()
        rows = torch.tensor([node.importance for node in graph.row(layer)])
        assert rows.sum(0).tolist() == pytest.approx(change[[0, 2]].tolist(), rel=1e-4)


def test_positions_without_any_residual_are_no_trouble() -> None:
    """A PFV that is the shift itself has no code and nothing left over."""
    of, x = loose(), photograph()[..., :2, :2]
    pfvs = Linear(gate=True).double()(x, "b")[0].flatten(1).T.detach()
    same = SmallBank({"a": of.layer("a"), "b": replace(of.layer("b"), shift=pfvs[0])})
    graph = built(same, x)
    assert graph.hierarchy is not None
    assert all(torch.tensor(pair.values).isfinite().all() for pair in graph.hierarchy.pairs)
    assert graph.accounts[0].completeness_error < 1e-3


def test_importances_in_a_linear_network_are_coefficients_times_weights() -> None:
    x, net, of = photograph(), Linear().double(), bank()
    graph = ConceptGraph.build(model(), of, x, [0, 2], budget=9, **PLAIN)
    back = {"b": net.head.weight, "a": net.head.weight @ net.b.weight[:, :, 0, 0]}
    for layer, way in back.items():
        atoms, pfvs = of.layer(layer).atoms, net(x, layer)[0].flatten(1).T.detach()
        codes = refit(pfvs, atoms, lasso(pfvs, atoms, of.layer(layer).lam)).codes
        expected = (codes.mean(0) * (atoms @ way.detach()[[0, 2]].T).T).T
        for node in graph.row(layer):
            if node.kind == "concept":
                assert node.importance == pytest.approx(expected[node.index].tolist(), abs=1e-6)
                assert node.effects == pytest.approx(node.importance, abs=1e-6)


def test_opening_and_closing_give_the_graphs_of_other_budgets() -> None:
    of, x = loose(), photograph()
    large, small = built(of, x, budget=5), built(of, x, budget=2)
    assert {e.source: e for e in large.cut(2).edges} == {e.source: e for e in small.edges}
    assert large.cut(2).cut(5) == large
    name = next(node.id for node in small.row("b") if node.opens)
    opened = small.opened(name)
    assert opened.closed(name) == small
    halves = {node.id for node in opened.row("b")} - {node.id for node in small.row("b")}
    assert len(halves) == 2
    assert all(opened.node(half).parent == name for half in halves)
    for target in ("logits/0", "logits/2"):
        into = {e.source: e.value for e in opened.into(target)}
        whole = {e.source: e.value for e in small.into(target)}
        assert sum(into.get(half, 0.0) for half in halves) == pytest.approx(whole[name])
    for account in opened.accounts:
        assert account.influence_kept + account.influence_residual <= 1 + 1e-6
    with pytest.raises(IerfError, match="no shown group that opens"):
        small.opened("b/residual")
    with pytest.raises(IerfError, match="no group that is open"):
        small.closed(name)


def test_all_flow_reaches_groups_or_residuals() -> None:
    """Nothing else is left out: what enters a row is what reached the groups of the row above."""
    graph = built(loose(), photograph(), budget=3)
    before = 1.0
    for layer in reversed(graph.layers):
        account = graph.account(layer)
        assert account.influence_kept + account.influence_residual == pytest.approx(before, abs=1e-6)
        before = account.influence_kept


def test_effects_are_those_of_interventions() -> None:
    of, x = loose(), photograph(count=2)
    graph = built(of, x)
    for layer in graph.layers:
        for node in graph.row(layer):
            if node.of_bank:
                change = intervene(model(gate=True), of, x, delete=node.id, refit=True).change.mean(0)  # type: ignore[arg-type]
                assert node.effects == pytest.approx((-change[[0, 2]]).tolist(), abs=1e-9)
    tested = graph.test(model(gate=True), of, x)  # type: ignore[arg-type]
    for layer, test in tested.layers.items():
        effects = [node.effects for node in graph.row(layer) if node.of_bank]
        assert test.lost.flatten().tolist() == pytest.approx([v for row in effects for v in row], abs=1e-9)


def test_rank_correlation_and_slope_of_claims() -> None:
    """In a linear network claims are effects."""
    x = photograph()
    tested = ConceptGraph.build(model(), bank(), x, [0, 2], budget=9, **PLAIN).test(model(), bank(), x)
    assert tested.rank_correlation == pytest.approx(1)
    assert tested.slope == pytest.approx(1, abs=1e-6)
    one = tested.layers["a"]
    turned = replace(one, claimed=torch.tensor([[1.0], [2], [3], [3]]), lost=torch.tensor([[4.0], [3], [2], [1]]))
    assert turned.rank_correlation == pytest.approx(-0.9486833)
    assert turned.slope == pytest.approx(19 / 23)


def test_the_mean_of_photographs_is_the_mean_of_their_graphs() -> None:
    of, x = loose(), photograph(count=2)
    both = table(built(of, x, budget=30))
    each = [table(built(of, x[i : i + 1], budget=30)) for i in range(2)]
    for name, value in both.items():
        if not any(word in name[0] + name[1] for word in ("own", "group", "residual")):
            assert value == pytest.approx(sum(one.get(name, 0.0) for one in each) / 2, rel=1e-5, abs=1e-7)


def test_a_residual_that_holds_much_opens_into_its_own_directions() -> None:
    """Two of five axes are concepts: the other three are the residual's directions, all of it."""
    of, x = bank(keep=2), photograph()
    graph = ConceptGraph.build(model(), of, x, [0, 2], **PLAIN)
    own = [node for node in graph.row("a") if node.kind == "own"]
    assert [node.id for node in own] == ["a/own0", "a/own1", "a/own2"]
    residual = next(node for node in graph.row("a") if node.kind == "residual")
    assert residual.importance == pytest.approx((0, 0), abs=1e-6)
    logits = Linear().double()(x)[0].detach()
    rows = torch.tensor([node.importance for node in graph.row("a")])
    nothing = Linear().double().head(Linear().double().b(torch.zeros(1, CHANNELS, 1, 1).double()).flatten())
    assert rows.sum(0).tolist() == pytest.approx((logits - nothing.detach())[[0, 2]].tolist(), rel=1e-6)
    with pytest.raises(IerfError, match="no bank has"):
        intervene(model(), of, x, delete="a/own0")
    several = ConceptGraph.build(model(), of, photograph(count=2), [0, 2], **PLAIN)
    assert not [node for node in several.nodes if node.kind == "own"]


def test_two_photographs_are_compared_on_the_same_groups() -> None:
    of = loose()
    found = compare_photographs(model(gate=True), of, *_pictures(), classes=[0, 1], pictures=False, draws=0)  # type: ignore[arg-type]
    before, after = found.before, found.after
    assert [node.id for node in before.nodes if node.kind == "group"] == [
        node.id for node in after.nodes if node.kind == "group"
    ]
    assert found.nodes
    same = compare_photographs(model(gate=True), of, *[_pictures()[0]] * 2, classes=[0, 1], pictures=False, draws=0)  # type: ignore[arg-type]
    assert same.nodes == same.edges == ()


def test_a_diagnosis_takes_groups_out() -> None:
    found = diagnose(model(gate=True), loose(), _pictures()[0], 0, 1, pictures=False, draws=0, budget=3)  # type: ignore[arg-type]
    assert found.culprits
    for culprit in found.culprits:
        effects = culprit.node.effects
        assert culprit.lost == pytest.approx(effects[0] - effects[1], abs=1e-9)


def _pictures() -> list[Any]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(256, (4, 4, 3), generator=generator).to(torch.uint8).numpy() for _ in range(2)]


def test_random_groups_are_subtrees_of_about_the_size() -> None:
    spans = tree().spans
    assert sorted(alike(spans, 1).tolist()) == [2, 5, 6, 7, 8]
    assert sorted(alike(spans, 2).tolist()) == [1]
    assert alike(spans, 0).tolist() == []
    (pairs, single) = random_groups(tree(), [1, 5], [(0, 1), (2,)], draws=300, seed=0)
    assert set(pairs.flatten().tolist()) == {2, 3, 4}
    assert not {(3, 2), (2, 3), (4, 2), (2, 4)} - {tuple(row) for row in pairs.tolist()}
    assert set(single.flatten().tolist()) == {0, 1, 3, 4}


def test_what_random_groups_are_worth() -> None:
    generator = torch.Generator().manual_seed(2)
    sensitivity, atoms = torch.randn(3, 2, 5, generator=generator), torch.randn(7, 5, generator=generator)
    norms, drawn = torch.tensor([1.0, 2, 3]), torch.tensor([[0, 1, 2], [6, 6, 5]])
    found = drawn_values(sensitivity, norms, atoms, drawn)
    for d in range(2):
        for t in range(2):
            expected = sum(
                norms[k] * sensitivity[k, t] @ (atoms[drawn[d, k]] / atoms[drawn[d, k]].norm()) for k in range(3)
            )
            assert float(found[d, t]) == pytest.approx(float(expected), rel=1e-5)


def test_edges_have_p_values_of_their_own_kind() -> None:
    graph = built(loose(), photograph(), draws=50)
    of_groups = [e.p_value for e in graph.edges if not e.source.endswith("residual")]
    assert of_groups
    assert all(p is not None and 1 / 51 <= p <= 1 for p in of_groups)
    assert len(set(of_groups)) > 3
    assert all(e.p_value is None for e in graph.edges if e.source.endswith("residual"))


def test_a_graph_shares_all_of_its_flow_with_itself_and_less_with_others() -> None:
    of, x = loose(), photograph()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    turned = SmallBank({name: replace(layer, atoms=layer.atoms[order]) for name, layer in of.of.items()})
    rows = stability(model(gate=True), of, x, [0, 2], noise=0.0, others={"turned": turned, "other": loose(5)})  # type: ignore[arg-type,dict-item]
    shared = {row.change: row.shared for row in rows}
    assert list(shared) == ["flipped", "noisy", "turned", "other"]
    for change in ("noisy", "turned"):
        assert shared[change] == pytest.approx({"a": 1.0, "b": 1.0})
    assert all(0 <= share < 0.99 for share in shared["other"].values())
    assert all(share == pytest.approx(1, abs=1e-6) for share in shared["flipped"].values())
    with pytest.raises(IerfError, match="one photograph"):
        stability(model(gate=True), of, photograph(count=2), [0])  # type: ignore[arg-type]


def test_options_of_single_concepts_do_not_go_with_groups() -> None:
    with pytest.raises(IerfError, match="top belong to nodes='concepts'"):
        ConceptGraph.build(model(), bank(), photograph(), [0], nodes="groups", top=3)
    with pytest.raises(IerfError, match="at least one group"):
        ConceptGraph.build(model(), bank(), photograph(), [0], budget=0)
    with pytest.raises(IerfError, match="kind of nodes"):
        ConceptGraph.build(model(), bank(), photograph(), [0], nodes="group")  # type: ignore[arg-type]
    single = ConceptGraph.build(model(), bank(), photograph(), [0], top=2, pictures=False)
    assert single.hierarchy is None
    with pytest.raises(IerfError, match="nodes='groups'"):
        single.opened("a/1")
