"""What every way of finding concepts has in common: a scikit-learn estimator of `X ≈ U V + shift` (Sec. VI-A1)."""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.deprecated import by_present_names
from ierf.errors import IerfError, UnknownNameError

Vectors = Float[Tensor, "N C"] | np.ndarray | Sequence[Sequence[float]]
"""PFVs as they come in: a tensor, an array of any number type, a list of lists."""
Shift = Float[Tensor, " C"] | np.ndarray | str | None
"""What is subtracted from PFVs: a vector (μ_BN, see `ierf.model.shift_of`), "mean", or None for nothing."""


class Extractor(Protocol):
    """Concepts as vectors: `X ≈ U V + shift` with codes U = `transform(X)` and V = `components_`.

    PFVs come in as a tensor, a numpy array of any number type or a list of lists; tensors come out, float32 (float64
    stays), on the device of what came in.
    """

    @property
    def components_(self) -> Float[Tensor, "K C"]:
        """The concept vectors (atoms), in the shifted space."""

    @property
    def shift_(self) -> Float[Tensor, " C"]:
        """What is subtracted from PFVs first."""

    def fit(self, x: Vectors, y: object = None) -> Self:
        """Find the concepts of these PFVs; `y` is there for scikit-learn and plays no part."""

    def transform(self, x: Vectors) -> Float[Tensor, "N K"]:
        """The extractor's own codes."""

    def fit_transform(self, x: Vectors, y: object = None) -> Float[Tensor, "N K"]:
        """Both, one after the other."""

    def inverse_transform(self, codes: Vectors) -> Float[Tensor, "N C"]:
        """`U V + shift`."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What it was made with."""

    def set_params(self, **params: Any) -> Self:
        """Change some of it; it takes effect in the next `fit`."""

    @property
    def config(self) -> dict[str, Any]:
        """Its name and parameters, as JSON can hold them."""


class NotFittedError(IerfError, AttributeError):
    """Something was asked of an extractor that it knows after `fit` alone."""


class Estimator:
    """What makes an extractor one of scikit-learn's estimators, without scikit-learn.

    `sklearn.base.clone`, pipelines and searches take it. Parameters are kept as they were given; what `fit` finds has
    a name that ends with `_`, and raises `NotFittedError` before.
    """

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_") and not name.startswith("_"):
            raise NotFittedError(
                f"this {type(self).__name__} is not fitted yet, so it has no {name}; call fit(X) first"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def fit_transform(self: Extractor, x: Vectors, y: object = None) -> Float[Tensor, "N K"]:
        """`fit(X)`, then `transform(X)`."""
        return self.fit(x, y).transform(x)

    def inverse_transform(self: Extractor, codes: Vectors) -> Float[Tensor, "N C"]:
        """`U V + shift`, on the device of the codes. Raises `IerfError` for another number of concepts."""
        atoms, given = self.components_, _tensor(codes)
        if given.ndim != 2 or given.shape[1] != len(atoms):
            raise IerfError(f"codes of {len(atoms)} concepts are of shape (N, {len(atoms)}), not {tuple(given.shape)}")
        return given @ atoms.to(given) + self.shift_.to(given)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that it was made with, by name; `deep` is there for scikit-learn."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change some arguments for the next `fit`. Raises `UnknownNameError` for others, `IerfError` as making one."""
        known, params = self.get_params(), by_present_names(type(self).__init__, params)
        for name in params:
            if name not in known:
                raise UnknownNameError(f"parameter of {type(self).__name__}", name, known)
        vars(self).update(vars(type(self)(**{**known, **params})))
        return self

    def __sklearn_is_fitted__(self) -> bool:
        try:
            return getattr(self, "components_", None) is not None
        except IerfError:
            return False

    def __sklearn_tags__(self) -> Any:
        """For scikit-learn, which alone asks."""
        from sklearn.utils import Tags, TargetTags, TransformerTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), transformer_tags=TransformerTags())


def shifted(found: Extractor, x: Vectors) -> Float[Tensor, "N C"]:
    """PFVs as a fitted extractor takes them. Raises `IerfError` for another number of channels."""
    vectors, shift = as_vectors(x), found.shift_
    if vectors.shape[1] != len(shift):
        raise IerfError(f"the concepts have {len(shift)} channels, the PFVs {vectors.shape[1]}")
    return vectors - shift.to(vectors)


def as_vectors(x: Vectors) -> Float[Tensor, "N C"]:
    """The PFVs as a tensor without gradients: float64 stays, all else becomes float32, on the device where they are.

    Raises `IerfError` if they are no (N, C) matrix with a row and a column, no real numbers, or hold NaN or infinity.
    """
    vectors = _tensor(x)
    if vectors.ndim != 2 or not vectors.numel():
        raise IerfError(
            f"concepts are found in PFVs of shape (N, C), one row each; got the shape {tuple(vectors.shape)}"
        )
    if not bool(torch.isfinite(vectors.sum(1)).all()) and not bool(torch.isfinite(vectors).all()):
        bad = int((~torch.isfinite(vectors).all(1)).nonzero()[0])
        raise IerfError(f"PFV {bad} holds NaN or infinity; leave such rows out")
    return vectors


def _tensor(x: Vectors) -> Tensor:
    """Numbers of any kind as float32, float64 as it is; a list's are float32, as torch has them."""
    if not isinstance(x, Tensor):
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise IerfError(f"PFVs are a matrix of numbers, with rows of one length: {error}") from None
        if array.dtype.kind not in "fiub":
            raise IerfError(f"PFVs are a matrix of real numbers, not of {array.dtype}")
        double = array.dtype == np.float64 and not isinstance(x, list | tuple)
        array = np.ascontiguousarray(array, np.float64 if double else np.float32)
        x = torch.from_numpy(array if array.flags.writeable else array.copy())
    if x.is_complex():
        raise IerfError(f"PFVs are a matrix of real numbers, not of {x.dtype}")
    given = x.detach().contiguous()
    return given if given.dtype == torch.float64 else given.float()


def shift_vector(x: Float[Tensor, "N C"], shift: Shift) -> Float[Tensor, " C"]:
    """The vector to subtract from PFVs. Raises `IerfError` for another word than "mean", or a wrong length."""
    if shift is None:
        return x.new_zeros(x.shape[1])
    if isinstance(shift, str):
        if shift != "mean":
            raise IerfError(f'a shift is a vector of length C, "mean" or None, not {shift!r}')
        return x.mean(0, dtype=torch.float64).to(x)
    vector = torch.as_tensor(shift).detach().to(x)
    if vector.shape != x.shape[1:] or not bool(torch.isfinite(vector).all()):
        raise IerfError(f"the shift is one finite number per channel, {x.shape[1]} of them; got {tuple(vector.shape)}")
    return vector


def describe_shift(shift: Shift) -> str | None:
    """A shift in the words of a JSON configuration: "mean", "given" or None."""
    return shift if shift is None or isinstance(shift, str) else "given"
