"""The papers' tables and figures, and what an explanation costs: one module, one command each."""

from ierf.experiments.cost.attnlrp import attnlrp_costs
from ierf.experiments.cost.collect import collect_costs
from ierf.experiments.cost.ratio import Cost
from ierf.experiments.cost.srd import srd_costs

__all__ = ["Cost", "attnlrp_costs", "collect_costs", "srd_costs"]
