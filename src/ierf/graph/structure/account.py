"""What a concept graph leaves out, in numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerAccount:
    """What one layer's nodes stand for and what they do not; means over the photographs, except where said."""

    layer: str
    concepts: int
    """Concepts in the layer's dictionary."""
    active: float
    """Concepts with a coefficient anywhere on a photograph."""
    l0: float
    """Concepts with a coefficient at a position."""
    residual_share: float
    """`‖X − X̂‖ / ‖X − shift‖`: how much of the layer its concepts miss."""
    kkt: float
    """The largest KKT residual of a code, relative to λ: how far the Lasso is from its optimum."""
    completeness_error: float
    """The largest `|Σ AT − (S(X̂) − S(0⁺))| / |S(X̂) − S(0⁺)|` of a score that was attributed to this layer."""
    logits: tuple[float, ...]
    """The classes' logits when X̂ replaces X here."""
    score_kept: tuple[float, ...]
    """For each class, `Σ |importance|` of the layer's shown concepts divided by that of all its concepts."""
    influence_kept: float
    """The share of the classes' scores that is followed down to the layer's shown concepts."""
    influence_residual: float
    """The share that ends in the layer's residual."""
