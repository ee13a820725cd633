"""What concepts leave out of a transformer's class token, and what that costs its concept graph.

    python benchmarks/graph_class_token.py photos/ --bank bank/ --photographs 20

Means over photographs, of a folder, a parquet file or a single one; of each layer of the bank:

- `‖X − X̂‖ / ‖X − shift‖` at the class token (all tokens before the patches) and at the patches;
- the predicted class's logit with X, with X̂ in its place, with X̂ but the class token as it is, and with X̂ at the
  class token alone;
- of the flow in the graph of the two most probable classes, what ends in the layer's residual;

and of all edges from concepts in those graphs (80 % of the flow), how many are no stronger than random concepts'; with
`--own-kind` also how many where the random concepts are of the edge's own kind, those of the class token or those of
patches: most of a concept's exemplars decide.
"""

import argparse
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import ierf
from ierf.concepts import ConceptBank
from ierf.graph import ConceptGraph, EncodedLayer, encode, values_of
from ierf.graph.building.encoding import residual_share
from ierf.graph.building.layer_edges import random_concepts
from ierf.graph.elements import SIGNIFICANT
from ierf.model import Section, VisionModel
from ierf.store import NO_ROW, open_images

KEEP = 0.8
COLUMNS = ("class token", "patches", "logit X", "X̂", "token kept", "token alone", "residual")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default="bundled:vit-tiny")
    parser.add_argument("--bank", required=True)
    parser.add_argument("--photographs", type=int, default=1, help="evenly spaced in the data")
    parser.add_argument("--own-kind", action="store_true", help="three times as long")
    arguments = parser.parse_args()
    model, bank, images = ierf.load(arguments.model), ConceptBank.load(arguments.bank), open_images(arguments.data)
    chosen = np.linspace(0, len(images.names) - 1, arguments.photographs).round().astype(int).tolist()
    photographs = [model.prepare(images.read(index)) for index in chosen]
    found = [_of_photograph(model, bank, x) for x in photographs]
    print(f"{'layer':10}", *(f"{column:>11}" for column in COLUMNS))
    for layer, values in zip(bank.layers, torch.stack([rows for rows, _ in found]).mean(0).tolist(), strict=True):
        shares = values[0], values[1], values[-1]
        of_layer = (*(f"{share:.1%}" for share in shares[:2]), *(f"{v:.2f}" for v in values[2:-1]), f"{shares[2]:.1%}")
        print(f"{layer:10}", *(f"{text:>11}" for text in of_layer))
    _say("random concepts", [edges for _, edges in found])
    if arguments.own_kind:
        _say("random concepts of their own kind", [_against_their_own_kind(model, bank, x) for x in photographs])


def _say(others: str, edges: list[tuple[int, int]]) -> None:
    doubtful, tested = np.sum(edges, 0)
    print(f"edges no stronger than those of {others}: {doubtful} of {tested}, {doubtful / tested:.0%}")


def _of_photograph(
    model: VisionModel, bank: ConceptBank, x: Float[Tensor, "1 3 H W"]
) -> tuple[Float[Tensor, "L 7"], tuple[int, int]]:
    """The numbers of each layer; doubtful edges and tested ones."""
    graph = ConceptGraph.build(model, bank, x, nodes="concepts", keep=KEEP, pictures=False)
    layers = encode(model, bank, x, bank.layers)
    rows = [
        torch.tensor([*_of_layer(model, bank, x, taken), graph.account(layer).influence_residual])
        for layer, taken in layers.items()
    ]
    tested = [edge.p_value > SIGNIFICANT for edge in graph.edges if edge.p_value is not None]
    return torch.stack(rows), (sum(tested), len(tested))


def _against_their_own_kind(model: VisionModel, bank: ConceptBank, x: Float[Tensor, "1 3 H W"]) -> tuple[int, int]:
    """Doubtful edges and tested ones, where random concepts are of the source's kind; a kind may lack."""
    of_token = {layer: _of_token(bank, layer) for layer in bank.layers}
    found: list[bool] = []
    for kind in (True, False):
        if not all((there == kind).any() for there in of_token.values()):
            continue
        drawn = iter(bank.layers)
        with mock.patch(
            "ierf.graph.building.build.random_concepts",
            lambda atoms, *rest, kind=kind, drawn=drawn: random_concepts(atoms[of_token[next(drawn)] == kind], *rest),
        ):
            graph = ConceptGraph.build(model, bank, x, nodes="concepts", keep=KEEP, pictures=False)
        for edge in graph.edges:
            node = graph.node(edge.source)
            if edge.p_value is not None and bool(of_token[node.layer][node.index]) == kind:
                found.append(edge.p_value > SIGNIFICANT)
    return sum(found), len(found)


def _of_token(bank: ConceptBank, layer: str) -> Bool[Tensor, " K"]:
    """Whether most exemplars of a concept are tokens in front of the patches."""
    rows = torch.from_numpy(bank.store.layer(layer).positions[:])[:, 0]
    return (rows[bank.layer(layer).exemplars] == NO_ROW).float().mean(1) > 0.5


def _of_layer(
    model: VisionModel, bank: ConceptBank, x: Float[Tensor, "1 3 H W"], taken: EncodedLayer
) -> Iterator[float]:
    before = taken.concepts.prefix_tokens or 0
    pfvs, made = taken.pfvs, taken.made.full
    for some in (slice(None, before), slice(before, None)):
        yield residual_share(pfvs[some], made[some], taken.made.shift)
    token_kept, token_alone = made.clone(), pfvs.clone()
    token_kept[:before], token_alone[:before] = pfvs[:before], made[:before]
    with torch.no_grad():
        section = Section.of(model, x, taken.concepts.name, None, values_of(bank))
        logits = section(torch.stack([pfvs, made, token_kept, token_alone]))
    yield from logits[:, logits[0].argmax()].tolist()


if __name__ == "__main__":
    main()
