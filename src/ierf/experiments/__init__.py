"""The papers' tables and figures, and what an explanation costs: one module, one command each."""

from ierf.experiments.attnlrp_cost import attnlrp_costs
from ierf.experiments.collect_cost import collect_costs
from ierf.experiments.cost import Cost
from ierf.experiments.srd_cost import srd_costs

__all__ = ["Cost", "attnlrp_costs", "collect_costs", "srd_costs"]
