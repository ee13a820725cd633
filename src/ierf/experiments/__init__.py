"""The papers' tables and figures, and what an explanation costs: one module, one command each."""

from ierf.experiments.cost.explanations import Cost, attnlrp_costs, collect_costs, srd_costs
from ierf.experiments.data import DataSet, Photo, drawn, open_data
from ierf.experiments.journal import Track
from ierf.experiments.methods import ABLATION, GROUPS, Method, parse_method, parse_methods
from ierf.experiments.results import Results, check_out, save, terminal_table
from ierf.experiments.statistics import Interval, confidence_interval, pearson, spearman

__all__ = [
    "ABLATION",
    "GROUPS",
    "Cost",
    "DataSet",
    "Interval",
    "Method",
    "Photo",
    "Results",
    "Track",
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
