"""How long and how an autoencoder is trained."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ierf.errors import IerfError, UnknownNameError

Schedule = Literal["cosine", "constant"]
Compute = Literal["float32", "bfloat16"]

_DEAD_AFTER = 10_000_000
_RAMP = 0.05
"""Share of the steps in which sparsity penalties rise to their value."""


@dataclass(frozen=True)
class Training:
    """Defaults are those of Gao 2024 (arXiv 2406.04093), scaled down for short runs.

    Args:
        samples: PFVs to see in all, repeats counted.
        batch: PFVs per step, on each rank.
        lr: learning rate of Adam; None: 2·10⁻⁴ / √(K/2¹⁴).
        warmup: steps in which it rises to that; at most a tenth of all steps.
        schedule: "cosine" down to 0, or "constant".
        dead_after: a latent is dead if it was silent for so many samples; None: 10⁷, at most a tenth of `samples`.
        buffer: PFVs that are mixed with each other.
        compute: "bfloat16" runs matrix products in bfloat16.
        seed: of the order of samples.
    """

    samples: int = 1_000_000
    batch: int = 1024
    lr: float | None = None
    warmup: int = 1000
    schedule: Schedule = "cosine"
    dead_after: int | None = None
    buffer: int = 1 << 17
    compute: Compute = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value, choices in (
            ("schedule", self.schedule, get_args(Schedule)),
            ("type to compute in", self.compute, get_args(Compute)),
        ):
            if value not in choices:
                raise UnknownNameError(what, value, choices)
        for name in ("samples", "batch", "buffer"):
            if getattr(self, name) < 1:
                raise IerfError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.warmup < 0 or (self.lr is not None and self.lr <= 0):
            raise IerfError(f"the learning rate is positive, its warm-up not negative; got {self.lr}, {self.warmup}")

    def steps(self, ranks: int) -> int:
        """Steps of all ranks together until all samples are seen."""
        return -(-self.samples // (self.batch * ranks))

    @property
    def silence(self) -> int:
        """After how many samples a latent counts as dead."""
        return self.dead_after if self.dead_after is not None else min(_DEAD_AFTER, max(1, self.samples // 10))

    def rate(self, step: int, steps: int, n_latents: int) -> float:
        """The learning rate of a step, counted from 0: linear warm-up, then the schedule."""
        peak = self.lr if self.lr is not None else 2e-4 / math.sqrt(n_latents / 2**14)
        warmup = min(self.warmup, steps // 10)
        if step < warmup:
            return peak * (step + 1) / warmup
        if self.schedule == "constant":
            return peak
        return peak * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2

    def ramp(self, step: int, steps: int) -> float:
        """What sparsity penalties are multiplied with in a step."""
        return min(1.0, (step + 1) / max(1.0, _RAMP * steps))
