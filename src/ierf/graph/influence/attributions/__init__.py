"""Attributions of a concept's coefficients, `AT(u_pq, S)`: all with one signature, by name."""

from collections.abc import Callable, Mapping

from ierf.graph.influence.attributions.attribution import Attribution, Question
from ierf.graph.influence.attributions.controls import coefficient_size, random
from ierf.graph.influence.attributions.deeplift import deeplift
from ierf.graph.influence.attributions.gradient_x_input import gradient_x_input
from ierf.graph.influence.attributions.integrated_gradients import integrated_gradients
from ierf.graph.influence.attributions.kernel_shap import kernel_shap
from ierf.graph.influence.attributions.lrp import lrp

METHODS: Mapping[str, Callable[..., Attribution]] = {
    "ig": integrated_gradients,
    "gradient_x_input": gradient_x_input,
    "deeplift": deeplift,
    "lrp": lrp,
    "kernel_shap": kernel_shap,
    "random": random,
    "coefficient_size": coefficient_size,
}

__all__ = ["METHODS", "Attribution", "Question"]
