"""What a layer's concepts leave out, as a node: its edges."""

from jaxtyping import Float
from torch import Tensor


def residual_values(of_layer: Float[Tensor, " T"], of_concepts: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """`S(X) − S(X̂)` for each target: what the score gains from the part of the layer that no concept covers.

    With integrated gradients `Σ_q AT_q = S(X̂) − S(0)`, so that concepts and residual add up to `S(X) − S(0)`.
    """
    return of_layer - of_concepts


def residual_share(
    x: Float[Tensor, "*N C"], reconstruction: Float[Tensor, "*N C"], shift: Float[Tensor, " C"]
) -> float:
    """`‖X − X̂‖ / ‖X − shift‖`; 0 for a layer without anything."""
    whole = (x - shift).norm()
    return float((x - reconstruction).norm() / whole) if whole > 0 else 0.0
