"""The papers' tables and figures, and what an explanation costs: one module, one command each."""

from ierf.experiments.costs import Cost, attnlrp_costs, collect_costs, srd_costs
from ierf.experiments.data import DataSet, Photo, drawn, open_data
from ierf.experiments.local import ABLATION, GROUPS, Method, parse_method, parse_methods
from ierf.experiments.results import (
    Interval,
    Results,
    check_out,
    confidence_interval,
    pearson,
    save,
    spearman,
    terminal_table,
)

__all__ = [
    "ABLATION",
    "GROUPS",
    "Cost",
    "DataSet",
    "Interval",
    "Method",
    "Photo",
    "Results",
    "attnlrp_costs",
    "check_out",
    "collect_costs",
    "confidence_interval",
    "drawn",
    "open_data",
    "parse_method",
    "parse_methods",
    "pearson",
    "save",
    "spearman",
    "srd_costs",
    "terminal_table",
]
