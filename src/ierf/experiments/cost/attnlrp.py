"""What AttnLRP costs, as ratios to plain gradients measured in the same run.

The floor. A forward pass and a gradient by the pixels are two passes of matrix products. With ε → 0 AttnLRP makes the
same two; its rules add a read and a write of each activation function's output, which is a percent of a ViT-B's time.
The γ-rule needs |W||a| and |W|ᵀs of every linear layer: the products of both passes once more, so 2 in all. The iERF of
a token in the last block is one backward pass: half of a forward and a gradient.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ierf.attribution import attribute, effective_receptive_fields
from ierf.experiments.cost.ratio import Cost, cost_of, noise, plain_gradient
from ierf.model import VisionModel

VARIANTS: dict[str, dict[str, Any]] = {
    "AttnLRP": {"method": "attnlrp"},
    "CP-LRP": {"method": "cp_lrp"},
    "AttnLRP, γ 0.25 and 0.05": {"method": "attnlrp", "conv_gamma": 0.25, "linear_gamma": 0.05},
}


def attnlrp_costs(
    model: VisionModel, layer: str | None, batches: Sequence[int] = (1, 8), rounds: int = 7, tokens: int = 16
) -> Iterator[Cost]:
    """The costs one after the other, on noise of the model's input size; every ratio comes from interleaved runs.

    layer: where the iERFs of the first `tokens` tokens start; None leaves them out.
    """
    for n in batches:
        x = noise(model, n)
        for name, options in VARIANTS.items():
            work = partial(attribute, model, x, **options)
            yield cost_of(f"{name}, batch {n}", work, "forward + gradient", partial(plain_gradient, model, x), rounds)
    if layer is not None:
        x = noise(model, 1)
        yield cost_of(
            f"iERFs of {tokens} tokens of {layer}",
            partial(effective_receptive_fields, model, x, layer, range(tokens)),
            f"{tokens} forwards + gradients",
            partial(plain_gradient, model, x),
            max(1, rounds // 3),
            tokens,
        )
