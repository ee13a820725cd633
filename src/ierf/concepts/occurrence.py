"""How often, how strongly and in which classes concepts occur, summed over PFVs as they come."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts.codes import Codes
from ierf.concepts.layer_concepts import ClassShares, relevance_shares

_CLASSES = 1 << 32
"""More than there are."""


class Occurrence:
    """Sums over the PFVs that were added; memory does not grow with their number."""

    def __init__(self, n_concepts: int) -> None:
        self._n, self._pfvs, self._error = n_concepts, 0, 0.0
        self._hits, self._sizes, self._relevance = (torch.zeros(n_concepts, dtype=torch.float64) for _ in range(3))
        self._pairs = torch.empty(0, dtype=torch.long)
        """Concept × 2³² + class."""
        self._sums = torch.empty(0, dtype=torch.float64)
        """Of the positive coefficients of each pair."""

    def add(
        self,
        shifted: Float[Tensor, "N C"],
        codes: Codes,
        atoms: Float[Tensor, "K C"],
        relevances: Float[Tensor, " N"],
        classes: Int[Tensor, " N"],
    ) -> None:
        """PFVs with their codes, their relevance to the predicted class (what is negative counts as none), and it."""
        self._pfvs += len(shifted)
        here = codes.values != 0
        concepts, values = codes.indices[here].cpu(), codes.values[here].double().cpu()
        self._hits += concepts.bincount(minlength=self._n)
        self._sizes += concepts.bincount(values.abs(), self._n)
        self._relevance += relevance_shares(codes, atoms, relevances.clamp_min(0).to(atoms)).double().cpu()
        lengths, left = shifted.norm(dim=1), (shifted - codes.times(atoms)).norm(dim=1)
        self._error += float(torch.where(lengths > 0, left / lengths, 0).sum())
        of_value = classes.long().repeat_interleave(here.sum(1).cpu())
        self._add_pairs((concepts * _CLASSES + of_value)[values > 0], values[values > 0])

    def summary(self) -> dict[str, Any]:
        """What `LayerConcepts` keeps of it."""
        relevance = float(self._relevance.sum())
        return {
            "l0_ratio": 1 - float(self._hits.sum()) / (self._pfvs * self._n),
            "relative_error": self._error / self._pfvs,
            "frequencies": (self._hits / self._pfvs).float(),
            "strengths": (self._sizes / self._hits.clamp_min(1)).float(),
            "relevances": (self._relevance / (relevance or 1.0)).float(),
            "class_shares": self._class_shares(),
        }

    def _add_pairs(self, pairs: Int[Tensor, " V"], values: Float[Tensor, " V"]) -> None:
        self._pairs, places = torch.unique(torch.cat([self._pairs, pairs]), return_inverse=True)
        sums = torch.zeros(len(self._pairs), dtype=torch.float64)
        self._sums = sums.scatter_add(0, places, torch.cat([self._sums, values]))

    def _class_shares(self) -> ClassShares:
        concepts, classes = self._pairs // _CLASSES, self._pairs % _CLASSES
        shares = self._sums / torch.zeros(self._n, dtype=torch.float64).scatter_add(0, concepts, self._sums)[concepts]
        order = shares.argsort(descending=True, stable=True)
        order = order[concepts[order].argsort(stable=True)]
        starts = torch.cat([torch.zeros(1, dtype=torch.long), concepts.bincount(minlength=self._n).cumsum(0)])
        return ClassShares(starts, classes[order].int(), shares[order].float())
