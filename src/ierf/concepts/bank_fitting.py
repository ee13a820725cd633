"""From the PFVs of a stored layer to its concepts (arXiv 2605.00474, Sec. VI-A1)."""

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts.bank_files import FitSettings
from ierf.concepts.codes import Codes
from ierf.concepts.extractor import Extractor, shift_vector
from ierf.concepts.extractors import make_extractor
from ierf.concepts.kmeans import BisectingSphericalKMeans
from ierf.concepts.layer_concepts import ClassShares, LayerConcepts, ShiftFrom, relevance_shares
from ierf.concepts.sparse_coding import choose_lam, lasso
from ierf.concepts.tree import MOST, ConceptTree, Firings, cluster
from ierf.errors import IerfError
from ierf.progress import StepCounter
from ierf.store import StoredLayer

_CLASSES = 1 << 32
"""More than there are."""
EXEMPLARS = 10
STAGES = 4
"""Steps that a layer takes, see `fit_layer`."""
PER_CHANNEL = 8
"""Concepts for each channel (Sec. VI-A1)."""
LEAST_PFVS = 3
"""PFVs for each concept at least; the paper has three in its deepest layers (50 000 PFVs, 16 384 concepts)."""
L0_RATIO = 0.996
"""Of the codes that λ is chosen for: the mean of Table III for bisecting k-means."""
_LEAST_ACTIVE = 0.5
"""Concepts of a PFV, on average."""
_FOR_LAMBDA = 512
"""PFVs that λ is chosen with."""
_AT_ONCE = 512
"""PFVs that are coded at once."""


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


def fit_layer(
    stored: StoredLayer, predictions: Int[np.ndarray, " I"], settings: FitSettings, progress: StepCounter
) -> LayerConcepts:
    """The concepts of a layer, their exemplars, λ, and how they occur. `predictions` are the classes of all images."""
    progress.begin(f"{stored.name}: finding concepts")
    x = stored.pfvs.torch().to(settings.device)
    count = concept_count(stored, settings.n_concepts)
    shift, shift_from = usual_shift(stored)
    found = make_extractor(settings.extractor, count, seed=settings.seed, shift=shift, **settings.options).fit(x)
    atoms, used = found.components_.detach().float(), found.shift_.detach().float()
    if not torch.allclose(used, shift_vector(x.float(), shift)):
        shift_from = "extractor"
    progress.begin(f"{stored.name}: choosing λ")
    rows = sampled(len(x), settings.encoded, settings.seed)
    lam = choose_lam(x[rows[:_FOR_LAMBDA]].float() - used, atoms, settings.l0_ratio, settings.positive)
    progress.begin(f"{stored.name}: coding PFVs")
    seen, firings = Occurrence(len(atoms)), Firings(len(rows))
    for some in np.split(np.sort(rows), range(_AT_ONCE, len(rows), _AT_ONCE)):
        shifted = x[some].float() - used
        codes = lasso(shifted, atoms, lam, settings.positive).sparse
        classes = torch.from_numpy(predictions[stored.images[some]])
        seen.add(shifted, codes, atoms, stored.relevances.torch(some), classes)
        firings.add(codes)
    known = seen.summary()
    _warn_of_silence(stored.name, len(atoms), (1 - known["l0_ratio"]) * len(atoms))
    progress.begin(f"{stored.name}: looking for exemplars")
    nearest = stored.nearest(atoms, EXEMPLARS, used.cpu())
    return LayerConcepts(
        name=stored.name,
        atoms=atoms.cpu(),
        shift=used.cpu(),
        shift_from=shift_from,
        lam=lam,
        positive=settings.positive,
        values=stored.plan.values,
        map=stored.plan.map,
        prefix_tokens=stored.plan.prefix_tokens,
        extractor=found.config,
        rows=len(x),
        encoded=len(rows),
        exemplars=nearest.rows,
        cosines=nearest.cosines,
        tree=_tree(found, atoms, firings),
        **known,
    )


def _warn_of_silence(layer: str, concepts: int, active: float) -> None:
    """Codes with less than a coefficient for two PFVs explain next to nothing."""
    if active < _LEAST_ACTIVE:
        most = max(0.0, 1 - 2 / concepts)
        warnings.warn(
            f"{layer}: a PFV is coded with {active:.2g} of {concepts} concepts on average, so most have none, and "
            f"graphs show few concepts or none; fit with l0_ratio={most:.3g} or less (--l0-ratio), or find more "
            "concepts in more photographs",
            stacklevel=4,
        )


def concept_count(stored: StoredLayer, wanted: int | None) -> int:
    """How many concepts a layer gets: what is wanted, else 8 for each channel, fewer (with a warning) for few PFVs."""
    if not len(stored):
        raise IerfError(f"the store holds no PFVs of {stored.name!r}: all of its images were skipped")
    if wanted is not None:
        if not 1 <= wanted <= len(stored):
            raise IerfError(f"{wanted} concepts cannot be found in the {len(stored)} PFVs of {stored.name!r}")
        return wanted
    usual, possible = PER_CHANNEL * stored.plan.channels, max(1, len(stored) // LEAST_PFVS)
    if possible < usual:
        warnings.warn(
            f"{stored.name}: {len(stored)} PFVs are too few for {usual} concepts ({PER_CHANNEL} for each channel), "
            f"so there are {possible}; collect {LEAST_PFVS * usual} PFVs for all of them",
            stacklevel=2,
        )
    return min(usual, possible)


def usual_shift(stored: StoredLayer) -> tuple[Float[Tensor, " C"] | str | None, ShiftFrom]:
    """μ_BN where the store has it, else the mean for tokens and nothing for maps of a convolutional network."""
    if stored.shift is not None:
        return stored.shift.float().cpu(), "batch-norm"
    tokens = stored.plan.prefix_tokens is not None or len(stored.plan.map) == 1
    return ("mean", "mean") if tokens else (None, "zero")


def sampled(count: int, most: int | None, seed: int) -> Int[np.ndarray, " R"]:
    """Rows in random order: all, or `most` of them."""
    return np.random.default_rng(seed).permutation(count)[:most]


def _tree(found: Extractor, atoms: Float[Tensor, "K C"], firings: Firings) -> ConceptTree | None:
    """The extractor's own, or one by clustering; None without scipy, or for more concepts than are clustered."""
    if isinstance(found, BisectingSphericalKMeans):
        return ConceptTree(found.parents_, found.sizes_, found.leaves_, "bisecting")
    possible = len(atoms) <= MOST and find_spec("scipy") is not None
    return cluster(atoms, firings) if possible else None
