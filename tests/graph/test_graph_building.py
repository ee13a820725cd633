"""Whole graphs of small networks: true edges, what is left out, permutations, many photographs, interventions."""

import numpy as np
import pytest
import torch
from support.small_bank import CHANNELS, Linear, SmallBank, SmallConcepts, bank, model, photograph, plan
from torch.nn.functional import cosine_similarity

import ierf
from ierf.concepts.sparse_coding import lasso
from ierf.errors import IerfError
from ierf.graph import (
    ConceptFacts,
    ConceptGraph,
    claims,
    compare,
    compare_photographs,
    intervene,
    left_out,
    select_nodes,
)
from ierf.graph.building.layer_edges import p_values, random_concepts
from ierf.model import VisionModel, capture

ALL = {"top": CHANNELS, "shared": CHANNELS, "keep": 1.0, "pictures": False}


def _codes(layer: str, x: torch.Tensor, of: object) -> tuple[torch.Tensor, torch.Tensor]:
    """The PFVs of a layer (P, C) and their codes (P, K), by hand."""
    pfvs = Linear().double()(x, layer)[0].flatten(1).T.detach()
    concepts = of.layer(layer)  # type: ignore[attr-defined]
    return pfvs, lasso(pfvs, concepts.atoms, concepts.lam).codes


def _score(net: Linear, pfvs: torch.Tensor, weights: torch.Tensor, atom: torch.Tensor) -> torch.Tensor:
    """`Σ_i u_it cos(x_i, v_t)` behind the second convolution."""
    made = torch.nn.functional.linear(pfvs, net.b.weight[:, :, 0, 0], net.b.bias)
    return (weights * cosine_similarity(made, atom[None])).sum()


def test_importance_in_a_linear_network_is_coefficient_times_weight() -> None:
    """`Σ_p u_pq ⟨v_q, w_c⟩ / P`, with `w_c` the way of class c back to the layer."""
    x, net = photograph(), Linear().double()
    graph = ConceptGraph.build(model(), bank(), x, [0, 2], also={"a": range(CHANNELS), "b": range(CHANNELS)}, **ALL)
    back = {"b": net.head.weight, "a": net.head.weight @ net.b.weight[:, :, 0, 0]}
    for layer, way in back.items():
        codes = _codes(layer, x, bank())[1]
        expected = codes.mean(0) * (bank().layer(layer).atoms @ way.detach()[[0, 2]].T).T
        for q in range(CHANNELS):
            found = graph.by_id.get(f"{layer}/{q}")
            if found is not None:
                assert found.importance == pytest.approx(expected[:, q].tolist(), abs=1e-9)
    assert sum(node.kind == "concept" for node in graph.nodes) == 2 * CHANNELS


def test_edges_to_classes_are_the_importances_of_the_last_layer() -> None:
    graph = ConceptGraph.build(model(), bank(), photograph(), [1], **ALL)
    last = {node.id: node.importance[0] for node in graph.row("b")}
    found = {edge.source: edge.value for edge in graph.edges if edge.target == "logits/1"}
    assert found == pytest.approx(last)


def test_edges_say_where_they_act() -> None:
    """To a class `u_pq ⟨v_q, w_c⟩ / P` at position p; to a concept the positions add up to the edge."""
    x, net = photograph(), Linear().double()
    options = {**ALL, "also": {"a": range(CHANNELS), "b": range(CHANNELS)}, "pictures": True}
    graph = ConceptGraph.build(model(), bank(), x, [0, 2], **options)
    codes, weights = _codes("b", x, bank())[1], bank().layer("b").atoms @ net.head.weight.detach().T
    acting = 0
    for edge in graph.edges:
        layer, _, index = edge.source.partition("/")
        if index == "residual":
            assert edge.map is None
            continue
        assert edge.map is not None
        found = edge.map.tensor().double()
        assert float(found.sum()) == pytest.approx(edge.value, abs=edge.map.scale * found.numel() / 2)
        if layer == "b":
            q, c = int(index), int(edge.target.partition("/")[2])
            expected = (codes[:, q] * weights[q, c] / len(codes)).view(found.shape)
            assert torch.allclose(found, expected, atol=edge.map.scale * 0.51)
            acting += 1
    assert acting >= CHANNELS
    of_two = ConceptGraph.build(model(), bank(), photograph(count=2), [0], **{**options, "also": {}})
    assert all(edge.map is None for edge in of_two.edges)


def test_the_steps_of_a_graph_are_counted() -> None:
    for count, pictures, total in ((1, True, 1 + 2 + 2 + 2), (1, False, 1 + 2 + 2), (2, False, 4 + 4 + 4)):
        said: list[tuple[str, int, int]] = []
        options = {**ALL, "pictures": pictures, "progress": lambda *step, said=said: said.append(step)}
        ConceptGraph.build(model(), bank(), photograph(count=count), [0], **options)
        assert [done for _, done, _ in said] == list(range(total))
        assert {of for _, _, of in said} == {total}
        assert said[0][0] == "coefficients of 2 layers"
        assert "edges from a to b" in {stage for stage, *_ in said}


def test_concepts_and_residual_add_up_to_the_score_of_the_layer() -> None:
    """One axis of "a" is no concept: `Σ_q ICAT(q → t) + residual = S(X) − S(0)`, scores computed by hand."""
    x, some, net = photograph(1), bank(keep=CHANNELS - 1), Linear().double()
    graph = ConceptGraph.build(model(), some, x, [0], also={"a": range(CHANNELS - 1)}, **ALL)
    (pfvs, codes), (_, weights) = _codes("a", x, some), _codes("b", x, some)
    made = codes @ some.layer("a").atoms
    for node in graph.row("b"):
        if node.kind == "concept":
            full, concepts, nothing = (
                float(_score(net, v, weights[:, node.index], some.layer("b").atoms[node.index]).detach())
                for v in (pfvs, made, torch.zeros_like(pfvs))
            )
            edges = {e.source: e.value for e in graph.into(node.id)}
            assert edges.pop("a/residual") == pytest.approx(full - concepts, abs=1e-9)
            assert sum(edges.values()) == pytest.approx(concepts - nothing, rel=1.1e-3)


def test_edges_are_gradients_along_the_path() -> None:
    """Behind a ReLU: `Σ_p u_pq mean_α ∂S/∂u_pq`, differentiated by the coefficients themselves."""
    x, some, net = photograph(2), bank(), Linear(gate=True).double()
    graph = ConceptGraph.build(model(gate=True), some, x, [0], also={"a": range(CHANNELS)}, steps=48, **ALL)
    codes = lasso(net.a(x)[0].flatten(1).T, some.layer("a").atoms, 1e-3).codes
    target = lasso(net(x, "b")[0].flatten(1).T, some.layer("b").atoms, 1e-3).codes
    for node in [node for node in graph.row("b") if node.kind == "concept"][:2]:
        gradient = torch.zeros_like(codes)
        for alpha in (torch.arange(100) + 0.5) / 100:
            u = (alpha * codes).requires_grad_()
            made = torch.relu(u @ some.layer("a").atoms)
            score = _score(net, made, target[:, node.index], some.layer("b").atoms[node.index])
            gradient += torch.autograd.grad(score, u)[0] / 100
        expected = (codes * gradient).sum(0)
        found = {e.source: e.value for e in graph.into(node.id)}
        for q in range(CHANNELS):
            assert found.get(f"a/{q}", 0.0) == pytest.approx(float(expected[q]), abs=0.02 * float(expected.abs().max()))


def test_shares_of_a_target_are_the_whole_where_everything_is_shown() -> None:
    graph = ConceptGraph.build(model(), bank(), photograph(), [0, 1], also={"a": range(5), "b": range(5)}, **ALL)
    for target in graph.nodes:
        if graph.into(target.id):
            assert sum(edge.share for edge in graph.into(target.id)) == pytest.approx(1)
    for account in graph.accounts:
        assert account.score_kept == pytest.approx((1, 1))
        assert account.influence_kept + account.influence_residual <= 1 + 1e-6
    top = graph.account("b")
    assert top.influence_kept + top.influence_residual == pytest.approx(1)


def test_weights_lie_between_0_and_1_and_the_largest_of_each_pair_is_1() -> None:
    graph = ConceptGraph.build(model(), bank(), photograph(3), [0, 1], **ALL)
    for layer in graph.layers:
        weights = [edge.weight for edge in graph.edges if edge.source.startswith(f"{layer}/")]
        assert max(weights) == pytest.approx(1)
        assert min(weights) >= 0


def test_the_order_of_atoms_only_renumbers_nodes() -> None:
    permutation = torch.tensor([3, 0, 4, 1, 2])
    options = {"also": {"a": range(5), "b": range(5)}, "draws": 500, **ALL}
    one = ConceptGraph.build(model(), bank(), photograph(), [0, 1], **options)
    other = ConceptGraph.build(model(), bank(permutation), photograph(), [0, 1], **options)
    renamed = {f"a/{new}": f"a/{old}" for new, old in enumerate(permutation.tolist())}
    expected = {(renamed.get(e.source, e.source), e.target): e.value for e in other.edges}
    assert expected == pytest.approx({(e.source, e.target): e.value for e in one.edges}, abs=1e-6)
    importance = {renamed.get(n.id, n.id): n.importance for n in other.nodes}
    assert set(importance) == {n.id for n in one.nodes}
    for node in one.nodes:
        assert importance[node.id] == pytest.approx(node.importance, abs=1e-9)


def test_many_photographs_give_the_mean() -> None:
    x, options = photograph(4, 3), {"also": {"a": range(5), "b": range(5)}, **ALL}
    together = ConceptGraph.build(model(), bank(), x, [0, 2], **options)
    alone = [ConceptGraph.build(model(), bank(), x[i : i + 1], [0, 2], **options) for i in range(3)]
    assert together.photographs == 3
    for node in together.nodes:
        values = torch.tensor([one.node(node.id).importance for one in alone], dtype=torch.float64)
        assert node.importance == pytest.approx(values.mean(0).tolist(), abs=1e-9)
    for edge in together.edges:
        values = [sum(e.value for e in one.into(edge.target) if e.source == edge.source) for one in alone]
        assert edge.value == pytest.approx(sum(values) / 3, abs=1e-6)


def test_a_graph_with_itself_has_no_changes_and_an_edited_photograph_has() -> None:
    same = compare_photographs(model(), bank(), *[_picture(0)] * 2, classes=[0, 1], pictures=False)
    assert same.nodes == ()
    assert same.edges == ()
    other = compare_photographs(model(), bank(), _picture(0), _picture(1), classes=[0, 1], pictures=False)
    assert other.nodes
    assert compare(other.before, other.before, least=0.0).edges == ()


def test_deleting_a_concept_costs_what_the_graph_claims_in_a_linear_network() -> None:
    x = photograph()
    graph = ConceptGraph.build(model(), bank(), x, [0, 2], also={"b": range(5)}, **ALL)
    for names in (["b/1"], ["b/0", "b/3", "b/4"]):
        for claim in claims(graph, intervene(model(), bank(), x, delete=names)):
            assert claim.lost == pytest.approx(claim.claimed, abs=1e-9)
            assert claim.probability[0] != claim.probability[1]


def test_inserting_a_concept_moves_every_position_along_its_atom() -> None:
    found = intervene(model(), bank(), photograph(), insert={"b/2": 0.7})
    expected = 0.7 * bank().layer("b").atoms[2] @ Linear().double().head.weight.detach().T
    assert found.change[0].tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_taking_out_and_putting_nothing_changes_nothing() -> None:
    assert float(intervene(model(), bank(), photograph()).change.abs().max()) == 0
    assert float(intervene(model(), bank(), photograph(), insert={"b/2": 0.0}).change.abs().max()) < 1e-12


@pytest.mark.parametrize("name", ["b", "b/residual", "b/99", "/3"])
def test_names_that_are_no_concepts_are_refused(name: str) -> None:
    with pytest.raises(IerfError, match="concept"):
        intervene(model(), bank(), photograph(), delete=[name])


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(IerfError, match="at least one photograph"):
        ConceptGraph.build(model(), bank(), [])
    with pytest.raises(IerfError, match="class 7"):
        ConceptGraph.build(model(), bank(), photograph(), [7])
    with pytest.raises(IerfError, match="no concept 12"):
        ConceptGraph.build(model(), bank(), photograph(), [0], also={"a": [12]})
    with pytest.raises(IerfError, match="a class to lead to"):
        ConceptGraph.build(model(), bank(), photograph(), [])


def test_nodes_have_pictures_maps_and_pixels() -> None:
    """A concept of "a" is at a pixel what the pixel makes of it: the map of coefficients, position by position."""
    graph = ConceptGraph.build(model(), bank(), photograph(), [0], top=2)
    node = next(node for node in graph.row("a") if node.kind == "concept")
    assert node.map is not None
    codes = _codes("a", photograph(), bank())[1][:, node.index].view(4, 4)
    assert torch.allclose(node.map.tensor().double(), codes, atol=node.map.scale)
    assert node.ierf is not None
    assert float(node.ierf.tensor().sum()) == pytest.approx(float(codes.sum()), rel=0.05, abs=16 * node.ierf.scale)
    assert len(node.exemplars) == 4
    assert graph.view.startswith(b"\x89PNG")
    assert node.index is not None
    neighbour = (node.index + 1) % 5
    assert node.facts == ConceptFacts(
        node.index / 8,
        node.index + 0.5,
        node.index / 16,
        ((f"class {node.index % 3}", 1.0),),
        ((neighbour, 0.25),),
        (0.875, 0.75),
    )


def test_the_most_important_and_the_shared() -> None:
    importance = torch.tensor([[5.0, 4.0, 3.0, 0.0, -1.0], [0.0, 1.0, 2.0, 9.0, -2.0]])
    assert select_nodes(importance, 2, 1).own == (0, 1, 3, 2)
    assert select_nodes(importance, 2, 1).shared == (2,)
    assert select_nodes(importance, 5, 5).own == (0, 1, 2, 3)
    assert select_nodes(importance, 5, 5).shared == (2, 1)
    assert select_nodes(importance[:1], 1, 3).all == (0,)


def test_random_concepts_are_as_significant_as_random_concepts() -> None:
    """p-values of atoms drawn like the null are uniform: mean 1/2, and 5 % lie below 0.05."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(400, 6, generator=generator)
    sensitivity = torch.randn(1, 1, 6, generator=generator).expand(400, 1, 6)
    values = (sensitivity[:, 0] * atoms).sum(1)[:, None]
    p = p_values(values / atoms.norm(dim=1, keepdim=True), sensitivity, torch.ones(400), random_concepts(atoms, 2000))
    assert float(p.mean()) == pytest.approx(0.5, abs=0.04)
    assert float((p < 0.05).float().mean()) == pytest.approx(0.05, abs=0.03)
    strong = p_values(torch.tensor([[1e6]]), sensitivity[:1], torch.ones(1), random_concepts(atoms, 99))
    assert float(strong) == pytest.approx(0.01)


def test_a_name_alone_stands_for_a_list_of_one() -> None:
    named = VisionModel(model().net, model().preprocess, labels=["tabby", "fox", "owl"])
    of_name, of_list = (ConceptGraph.build(named, bank(), photograph(), c, **ALL) for c in ("fox", ["fox"]))
    assert of_name == of_list
    alone, listed = (intervene(named, bank(), photograph(), delete=d) for d in ("b/1", ["b/1"]))
    assert alone.deleted == listed.deleted == ("b/1",)
    assert torch.equal(alone.after, listed.after)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_bank_in_float32_serves_networks_of_other_types(dtype: torch.dtype) -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cnn, other = ierf.load("bundled:world-cnn"), ierf.load("bundled:world-cnn")
    other.net.to(dtype)
    atoms = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
    concepts = SmallBank({"layer4": SmallConcepts("layer4", atoms, torch.zeros(64), lam=0.5, map=(8, 8))})
    built = [ConceptGraph.build(m, concepts, y, [0, 1], draws=9, keep=1.0) for m, y in ((cnn, x), (other, x.to(dtype)))]
    usual, found = ({(e.source, e.target): e.value for e in graph.edges} for graph in built)
    assert usual.keys() == found.keys()
    largest = max(map(abs, usual.values()))
    assert all(abs(usual[k] - found[k]) <= (0.1 if dtype == torch.bfloat16 else 1e-3) * largest for k in usual)


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def test_a_transformers_maps_are_those_of_its_patches() -> None:
    """The class token comes first: it counts for how much of a concept there is, has no cell, and its share is told."""
    vit, generator = ierf.load("bundled:vit-tiny"), torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 64, 64, generator=generator)
    kept: dict[str, torch.Tensor] = {}
    hook = vit.module("blocks.4").register_forward_hook(lambda _, __, tokens: kept.update(tokens=tokens[0]))
    with torch.no_grad():
        vit(x)
    hook.remove()
    zero = torch.zeros(192)
    concepts = SmallConcepts("blocks.4", kept["tokens"][[0, 9, 34]], zero, lam=5.0, map=(8, 8), prefix_tokens=1)
    graph = ConceptGraph.build(vit, SmallBank({"blocks.4": concepts}), x, top=3, draws=9)
    codes = lasso(kept["tokens"], concepts.atoms, concepts.lam).codes
    nodes = [node for node in graph.row("blocks.4") if node.kind == "concept"]
    assert max(node.prefix_share for node in nodes) > 0.05
    for node in nodes:
        assert node.map is not None
        assert node.activation == pytest.approx(float(codes[:, node.index].abs().sum()), rel=1e-3)
        assert torch.allclose(node.map.tensor(), codes[1:, node.index].view(8, 8), atol=node.map.scale)
        sizes = codes[:, node.index].abs()
        assert node.prefix_share == pytest.approx(float(sizes[0] / sizes.sum()), rel=1e-3)
        for token, cell in ((9, (1, 0)), (34, (4, 1))):
            assert float(node.map.tensor()[cell]) == pytest.approx(float(codes[token, node.index]), abs=node.map.scale)


def test_the_share_of_prefix_tokens_is_that_of_all_photographs() -> None:
    vit, x = ierf.load("bundled:vit-tiny"), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    x[1] *= 0.1
    pfvs = capture(vit, x, ["blocks.4"])["blocks.4"].pfvs.detach()
    concepts = SmallConcepts("blocks.4", pfvs[0, [0, 20]], torch.zeros(192), lam=5.0, map=(8, 8), prefix_tokens=1)
    options = {"also": {"blocks.4": [0]}, "draws": 9, "keep": 1.0}
    graph = ConceptGraph.build(vit, SmallBank({"blocks.4": concepts}), x, [3], **options)
    sizes = lasso(pfvs.flatten(0, 1), concepts.atoms, concepts.lam).codes.abs().view(2, 65, 2)
    nodes = [node for node in graph.row("blocks.4") if node.kind == "concept"]
    assert nodes
    told = [sentence for sentence in left_out(graph) if "patches alone" in sentence]
    assert len(told) == graph.settings["patches_only"] == 1
    both = SmallBank({"blocks.4": concepts}, plan(prefix_tokens=True))
    assert not ConceptGraph.build(vit, both, x[:1], [3], draws=9, pictures=False).settings["patches_only"]
    for node in nodes:
        expected = sizes[:, 0, node.index].sum() / sizes[..., node.index].sum()
        assert node.prefix_share == pytest.approx(float(expected), rel=1e-3)
    of_each = sizes[:, 0, 0] / sizes[..., 0].sum(1)
    assert abs(float(of_each.mean()) - graph.node("blocks.4/0").prefix_share) > 1e-4
