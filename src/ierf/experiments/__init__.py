"""The papers' tables and figures, and what an explanation costs: one module, one command each."""

from ierf.experiments.cost.explanations import Cost, attnlrp_costs, collect_costs, srd_costs

__all__ = ["Cost", "attnlrp_costs", "collect_costs", "srd_costs"]
