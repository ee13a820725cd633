"""Why LRP is weak where it is: the length of PFVs that it holds constant, or what it does in the network?

    python benchmarks/lrp_length.py --bank bank/ --data val.parquet --layers layer3.1,layer4.1 --photographs 30

Insertion less deletion of `ierf evaluate interlayer` with the same photographs and targets, for LRP, for gradient ×
input and DeepLIFT, and for two that change one thing about LRP: `let the length change` starts with the score's own
secant from the shift alone to X̂; `integrated, length held` takes the integral through the network in place of its slope
at X̂. Below, for the PFVs of the later layer less their shift: their length with all concepts over that with none, and
the cosine between the two.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import ierf
from ierf.concepts import ConceptBank
from ierf.experiments import drawn, open_data
from ierf.graph import (
    METHODS,
    Alignment,
    Attribution,
    Logits,
    Reconstruction,
    area,
    interlayer_curves,
    largest_cosine,
    values_of,
)
from ierf.graph import LayerObjective as Question
from ierf.graph import encode as take
from ierf.graph import select_nodes as choose
from ierf.model import Section, evaluating


@dataclass(frozen=True, eq=False)
class LengthHeld:
    """`Σ_i u_it ⟨y_i − shift, v̂_t⟩ / ‖x̂_i‖` with the lengths of the PFVs in X̂."""

    score: Alignment
    held: Float[Tensor, "1 P C"]

    def __call__(self, y: Float[Tensor, "B P C"]) -> Float[Tensor, "B T"]:
        assert self.score.shift is not None
        along: Tensor = torch.einsum("tpc,bpc->bt", self.score.slope(self.held, None)[:, 0], y - self.score.shift)
        return along

    def slope(self, y: Float[Tensor, "B P C"], before: Float[Tensor, "B P C"] | None) -> Float[Tensor, "T B P C"]:
        return self.score.slope(self.held, None).expand(-1, len(y), -1, -1)


def attributions(x: Reconstruction, section: Section, score: Alignment) -> dict[str, Tensor]:
    """Of each active concept to each target."""
    question = Question(section, score)
    with torch.no_grad():
        ends = section(x.at(torch.tensor([0.0, 1.0])))
    before, after = ends[:1], ends[1:]
    leaf = x.full[None].requires_grad_()
    starts, output = score.slope(after, before), section(leaf)
    slopes = torch.stack([torch.autograd.grad(output, leaf, start, retain_graph=True)[0][0] for start in starts])
    return {
        "lrp": METHODS["lrp"](x, question).values,
        "let the length change": Attribution.by_slopes(x, question.ends(x), slopes).values,
        "integrated, length held": METHODS["ig"](x, Question(section, LengthHeld(score, after))).values,
        "gradient_x_input": METHODS["gradient_x_input"](x, question).values,
        "deeplift": METHODS["deeplift"](x, question).values,
    }


def one(model: ierf.VisionModel, bank: ConceptBank, x: Tensor, layers: tuple[str, str]) -> dict[str, float]:
    """Insertion less deletion of each attribution, and the two facts, of one photograph."""
    with torch.no_grad():
        predicted = int(model(x).argmax())
    taken, values = take(model, bank, x, layers), values_of(bank)
    source, target = (taken[layer] for layer in layers)
    whole = Question(Section.of(model, x, layers[1], None, values), Logits([predicted]))
    importance = target.made.spread(METHODS["ig"](target.made, whole).values.T).T
    chosen = torch.tensor(choose(importance, 3, 0).own)
    section, shift = Section.of(model, x, *layers, values), target.made.shift
    score = Alignment(target.concepts.atoms.to(target.pfvs)[chosen], target.columns(chosen), shift)

    def strength(pfvs: Tensor) -> Tensor:
        return largest_cosine(section(pfvs), score.atoms, shift)

    found: dict[str, float] = {}
    for name, each in attributions(source.made, section, score).items():
        curves = interlayer_curves(source.made, strength, each)
        areas = area(curves.counts, curves.insertion) - area(curves.counts, curves.deletion)
        found[name] = float(areas[strength(source.made.full[None])[0] > 0].mean())
    with torch.no_grad():
        none, full = section(source.made.at(torch.tensor([0.0, 1.0]))) - shift
    found["length with concepts / without"] = float(full.norm(dim=1).mean() / none.norm(dim=1).mean())
    found["cosine with / without"] = float(torch.cosine_similarity(full, none, dim=1).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:resnet18-tiny")
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--data", required=True, help="As `ierf evaluate interlayer --data` takes it.")
    parser.add_argument("--layers", default="layer3.1,layer4.1")
    parser.add_argument("--photographs", type=int, default=30)
    arguments = parser.parse_args()
    model, bank, data = ierf.load(arguments.model), ConceptBank.load(arguments.bank), open_data(arguments.data)
    first, second = arguments.layers.split(",")
    with evaluating(model.net):
        rows = [
            one(model, bank, model.prepare(data.read(name).image), (first, second))
            for name in drawn(data, arguments.photographs, 0)
        ]
    for name in rows[0]:
        values = torch.tensor([row[name] for row in rows])
        print(f"{name}: {values.mean():.3f} ± {values.std() / len(values) ** 0.5:.3f}")


if __name__ == "__main__":
    main()
