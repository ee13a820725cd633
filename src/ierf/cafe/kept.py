"""What a stream of photographs leaves of each latent, in a memory that does not grow with the stream."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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
        self,
        codes: Float[Tensor, "N p K"],
        images: Int[Tensor, " N"],
        keys: Float[Tensor, "N K"],
        classes: Int[Tensor, " N"],
    ) -> Self:
        """After N more photographs: their codes, their numbers, random keys in (0, 1), their predicted classes.

        One pass over all codes finds the peaks; all else is asked only of latents for which a photograph is kept.
        """
        peaks = codes.amax(1).cpu()
        active = peaks > 0
        drawn = keys * active
        entering = (self.top[:, -1:] < peaks.T) | (self.sample_keys[:, -1:] < drawn.T)
        rows = entering.any(1).nonzero()[:, 0]
        changed = self._examples(rows, codes, peaks[:, rows], drawn[:, rows], images)
        return replace(
            self,
            **{name: getattr(self, name).index_copy(0, rows, tensor) for name, tensor in changed.items()},
            fired=self.fired + active.sum(0),
            total=self.total + peaks.double().sum(0),
            of_class=self.of_class.T.index_add(0, classes, peaks.double()).T,
        )

    def _examples(
        self,
        rows: Int[Tensor, " k"],
        codes: Float[Tensor, "N p K"],
        peaks: Float[Tensor, "N k"],
        keys: Float[Tensor, "N k"],
        images: Int[Tensor, " N"],
    ) -> dict[str, Tensor]:
        """The photographs kept of some latents, after N more."""
        top, order = _largest(self.top[rows], peaks)
        new, which, maps = _entered(order, self.top.shape[1], codes, rows)
        kept_keys, drawn = _largest(self.sample_keys[rows], keys)
        drawn_new, drawn_which, drawn_maps = _entered(drawn, self.sample.shape[1], codes, rows)
        return {
            "top": top,
            "top_images": _joined(self.top_images[rows], order, new, images[which]),
            "top_places": _joined(self.top_places[rows], order, new, maps.argmax(1)),
            "sample_keys": kept_keys,
            "sample": _joined(self.sample[rows], drawn, drawn_new, drawn_maps.amax(1)),
            "sample_images": _joined(self.sample_images[rows], drawn, drawn_new, images[drawn_which]),
            "sample_places": _joined(self.sample_places[rows], drawn, drawn_new, drawn_maps.argmax(1)),
            "sample_entropy": _joined(self.sample_entropy[rows], drawn, drawn_new, collision_entropy(drawn_maps)),
        }


def collision_entropy(maps: Float[Tensor, "A p"]) -> Float[Tensor, " A"]:
    """`log((Σ z)² / Σ z²) / log p`, Rényi's entropy of order 2: 0 for one patch or none, 1 for all alike."""
    if maps.shape[1] == 1:
        return torch.zeros_like(maps[:, 0])
    first, second = maps.sum(1), maps.norm(dim=1)
    entropy: Tensor = 2 * (first / second.where(second > 0, 1)).clamp_min(1).log() / math.log(maps.shape[1])
    return entropy


def _largest(kept: Float[Tensor, "K n"], more: Float[Tensor, "N K"]) -> tuple[Float[Tensor, "K n"], Int[Tensor, "K n"]]:
    """The n largest of what was kept and of what comes, and where they were: from n on among what comes."""
    largest, order = torch.cat([kept, more.T], 1).topk(kept.shape[1], dim=1)
    return largest, order


def _entered(
    order: Int[Tensor, "k n"], count: int, codes: Float[Tensor, "N p K"], rows: Int[Tensor, " k"]
) -> tuple[Bool[Tensor, "k n"], Int[Tensor, " A"], Float[Tensor, "A p"]]:
    """What is new in an order of `count` kept ones and N more: where, which of the N, their activation maps."""
    new = order >= count
    latents, which = rows[new.nonzero()[:, 0]], order[new] - count
    return new, which, codes[which.to(codes.device), :, latents.to(codes.device)].cpu()


def _joined(kept: Tensor, order: Int[Tensor, "K n"], new: Tensor, values: Tensor) -> Tensor:
    """What was kept in a new order, with the values of what is new in its places."""
    old = kept.gather(1, order.clamp_max(kept.shape[1] - 1))
    return old.masked_scatter(new, values.to(old.dtype))
