"""The Lasso of many PFVs on fixed atoms, each answer with its certificate."""

from ierf.concepts.lasso.choosing import choose_lam
from ierf.concepts.lasso.lasso import lasso, lasso_path
from ierf.concepts.lasso.solution import LassoCodes

__all__ = ["LassoCodes", "choose_lam", "lasso", "lasso_path"]
