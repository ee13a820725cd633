"""How alike two maps are."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.metrics import normalise_map
from ierf.model.loading.extras import extra


def spearman(a: Float[Tensor, "H W"], b: Float[Tensor, "H W"]) -> float:
    """The correlation of the ranks; equal values share the mean of theirs. NaN where a map is constant."""
    return pearson(ranks(a), ranks(b))


def pearson(a: Float[Tensor, "*P"], b: Float[Tensor, "*P"]) -> float:
    """The correlation of the values. NaN where a map is constant or not finite."""
    centred = [t.double().flatten() - t.double().mean() for t in (a, b)]
    spread = centred[0].norm() * centred[1].norm()
    return float(centred[0] @ centred[1] / spread) if spread > 0 else torch.nan


def ranks(map: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Each value's place in ascending order, from 0; equal values have the mean of their places."""
    values = map.flatten()
    ascending = values.sort().values
    below, up_to = (torch.searchsorted(ascending, values, right=right) for right in (False, True))
    return ((below + up_to - 1) / 2).view(map.shape).double()


def ssim(a: Float[Tensor, "H W"], b: Float[Tensor, "H W"]) -> float:
    """Structural similarity of two maps, each divided by its own max |·| and taken absolutely: values in [0, 1].

    Wang et al., IEEE TIP 2004, by scikit-image with its usual 7 × 7 window. NaN where a map is zero or not finite.
    """
    maps = [normalise_map(t.detach().double().cpu()).abs() for t in (a, b)]
    if not all(bool(t.isfinite().all()) and bool(t.any()) for t in maps):
        return torch.nan
    one, other = (t.numpy() for t in maps)
    return float(extra("skimage.metrics", "demo").structural_similarity(one, other, data_range=1.0))
