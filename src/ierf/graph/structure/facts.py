"""What a bank knows of a concept, beyond one photograph."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConceptFacts:
    """How a concept occurs in the photographs of its bank."""

    frequency: float
    """The share of PFVs whose coefficient is not zero."""
    strength: float
    """The mean size of the coefficients that are not zero."""
    relevance: float
    """Its share of the layer's relevance."""
    classes: tuple[tuple[str, float], ...]
    """Predicted classes with their shares of its positive coefficients, the largest first."""
    nearest: tuple[tuple[int, float], ...]
    """Concepts of the layer with the largest cosines."""
    cosines: tuple[float, ...]
    """Of its exemplars with its vector."""
