"""The papers' tables and figures, and what an explanation costs: one module, one command each."""

from ierf.experiments.srd_cost import Cost, srd_costs

__all__ = ["Cost", "srd_costs"]
