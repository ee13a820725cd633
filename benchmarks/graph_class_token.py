"""What concepts of patches leave out of a transformer's class token, and what that costs.

    python benchmarks/graph_class_token.py cat.jpg --bank bank/ --classes lion,cougar

For each layer of the bank: `‖X − X̂‖ / ‖X − shift‖` at the class token (all tokens before the patches) and at the
patches; and the classes' logits with X̂ in the place of X, with X̂ but the class token as it is, with X̂ at the class
token alone.
"""

import argparse

import torch

import ierf
from ierf.concepts import ConceptBank
from ierf.graph.building.residual import residual_share
from ierf.graph.building.taking import take, values_of
from ierf.model import Section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("--model", default="bundled:vit-tiny")
    parser.add_argument("--bank", required=True)
    parser.add_argument("--classes", required=True)
    arguments = parser.parse_args()
    model, bank = ierf.load(arguments.model), ConceptBank.load(arguments.bank)
    classes, x = [model.class_index(c) for c in arguments.classes.split(",")], model.prepare(arguments.photo)
    for layer, taken in take(model, bank, x, bank.layers).items():
        before = taken.concepts.prefix_tokens or 0
        pfvs, made, shift = taken.pfvs, taken.made.full, taken.made.shift
        token_kept, token_made = made.clone(), pfvs.clone()
        token_kept[:before], token_made[:before] = pfvs[:before], made[:before]
        with torch.no_grad():
            section = Section.of(model, x, layer, None, values_of(bank))
            logits = section(torch.stack([pfvs, made, token_kept, token_made]))[:, classes]
        token = residual_share(pfvs[:before], made[:before], shift)
        patches = residual_share(pfvs[before:], made[before:], shift)
        print(f"{layer}: not covered {token:.0%} of the class token, {patches:.0%} of the patches", end="")
        for name, row in zip(("X", "X̂", "class token kept", "class token alone"), logits.tolist(), strict=True):
            print(f"; {name}", *(f"{value:.2f}" for value in row), end="")
        print()


if __name__ == "__main__":
    main()
