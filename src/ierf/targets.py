"""What to explain: `ierf.targets.Logit`, `Channel`, `PFV`, `Direction`, `Latent`, `Relevance`."""

from ierf.attribution.targets import PFV, Channel, Direction, Latent, Logit, Relevance, Target

__all__ = ["PFV", "Channel", "Direction", "Latent", "Logit", "Relevance", "Target"]
