"""What to explain: `ierf.targets.Logit`, `Channel`, `PFV`, `Direction`, `Relevance`."""

from ierf.attribution.targets import PFV, Channel, Direction, Logit, Relevance, Target

__all__ = ["PFV", "Channel", "Direction", "Logit", "Relevance", "Target"]
