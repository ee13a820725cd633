"""What a stream of photographs leaves of each latent, in a memory that does not grow with the stream."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.cafe.peaks import Peaks, numbered


@dataclass(frozen=True)
class Kept:
    """Of the latents of one layer, read at patches or at the class token.

    A photograph counts with its largest activation. `sample` is a uniform sample without replacement of the
    photographs that activate a latent: those with the largest random keys.
    """

    top: Float[Tensor, "K n"]
    """Activations of the photographs that activate a latent most, descending; 0: there are no more."""
    top_images: Int[Tensor, "K n"]
    top_places: Int[Tensor, "K n"]
    """Row-major places of the strongest patch; 0 of a class token."""
    sample_keys: Float[Tensor, "K m"]
    sample: Float[Tensor, "K m"]
    sample_images: Int[Tensor, "K m"]
    sample_places: Int[Tensor, "K m"]
    sample_entropy: Float[Tensor, "K m"]
    """Normalised collision entropy of the activation map."""
    fired: Float[Tensor, " K"]
    """In how many photographs the latent is active."""
    total: Float[Tensor, " K"]
    """Sum of the activations."""
    of_class: Float[Tensor, "K T"]
    """Sum of the activations over the photographs of each predicted class."""

    @classmethod
    def empty(cls, latents: int, top: int, sample: int, classes: int) -> Self:
        tops, samples = torch.zeros(latents, top), torch.zeros(latents, sample)
        sums = torch.zeros(latents, dtype=torch.float64)
        return cls(
            top=tops,
            top_images=tops.int(),
            top_places=tops.int(),
            sample_keys=samples,
            sample=samples.clone(),
            sample_images=samples.int(),
            sample_places=samples.int(),
            sample_entropy=samples.clone(),
            fired=sums,
            total=sums.clone(),
            of_class=sums[:, None].repeat(1, classes),
        )

    def tensors(self) -> Mapping[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_more(
        self, peaks: Peaks, images: Int[Tensor, " N"], keys: Float[Tensor, "N K"], classes: Int[Tensor, " N"]
    ) -> Self:
        """After N more photographs: their peaks, their numbers, random keys in (0, 1), their predicted classes.

        Activation maps are asked for only where a photograph may be kept of a latent.
        """
        values, bounds = peaks.values.cpu(), peaks.bounds.cpu()
        entering = (bounds > self.top[:, -1]) | (keys * (bounds > 0) > self.sample_keys[:, -1])
        samples, latents = entering.nonzero(as_tuple=True)
        device = peaks.values.device
        maps = peaks.maps(samples.to(device), latents.to(device)).cpu().float()
        more = _Table.of(latents, maps, images[samples], keys[samples, latents])
        return replace(
            self,
            **self._examples(more),
            fired=self.fired + (values > 0).sum(0),
            total=self.total + values.double().sum(0),
            of_class=self.of_class.T.index_add(0, classes, values.double()).T,
        )

    def _examples(self, more: "_Table") -> dict[str, Tensor]:
        """The photographs kept of all latents."""
        changed = _largest(
            more.rows,
            (self.top, self.top_images, self.top_places),
            (more.values, more.images, more.places),
        ) + _largest(
            more.rows,
            (self.sample_keys, self.sample, self.sample_images, self.sample_places, self.sample_entropy),
            (more.keys * (more.values > 0), more.values, more.images, more.places, more.entropy),
        )
        return dict(zip(_EXAMPLES, changed, strict=True))


_EXAMPLES = tuple(field.name for field in fields(Kept) if field.name.startswith(("top", "sample")))


@dataclass(frozen=True)
class _Table:
    """Photographs that may be kept, a row for each latent that has any, filled up with zeros."""

    rows: Int[Tensor, " k"]
    """The latents."""
    values: Float[Tensor, "k m"]
    images: Int[Tensor, "k m"]
    places: Int[Tensor, "k m"]
    entropy: Float[Tensor, "k m"]
    keys: Float[Tensor, "k m"]

    @classmethod
    def of(
        cls,
        latents: Int[Tensor, " A"],
        maps: Float[Tensor, "A p"],
        images: Int[Tensor, " A"],
        keys: Float[Tensor, " A"],
    ) -> Self:
        """Of activation maps, those of a latent in the order of their photographs."""
        rows, row = torch.unique(latents, return_inverse=True)
        slots = numbered(latents)
        width = int(slots.amax()) + 1 if len(slots) else 0
        columns = (maps.amax(1), images.int(), maps.argmax(1).int(), collision_entropy(maps), keys)
        tables = (one.new_zeros(len(rows), width).index_put((row, slots), one) for one in columns)
        return cls(rows, *tables)


def collision_entropy(maps: Float[Tensor, "A p"]) -> Float[Tensor, " A"]:
    """`log((Σ z)² / Σ z²) / log p`, Rényi's entropy of order 2: 0 for one patch or none, 1 for all alike."""
    if maps.shape[1] == 1:
        return torch.zeros_like(maps[:, 0])
    first, second = maps.sum(1), maps.norm(dim=1)
    entropy: Tensor = 2 * (first / second.where(second > 0, 1)).clamp_min(1).log() / math.log(maps.shape[1])
    return entropy


def _largest(
    rows: Int[Tensor, " k"], kept: Sequence[Float[Tensor, "K n"]], more: Sequence[Float[Tensor, "k m"]]
) -> list[Float[Tensor, "K n"]]:
    """Columns of which the first decides: in some rows the n largest of what was kept and of what comes."""
    first, order = torch.cat([kept[0][rows], more[0]], 1).topk(kept[0].shape[1], dim=1)
    others = (torch.cat([old[rows], new], 1).gather(1, order) for old, new in zip(kept[1:], more[1:], strict=True))
    return [old.index_copy(0, rows, new) for old, new in zip(kept, (first, *others), strict=True)]
