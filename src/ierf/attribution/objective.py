"""The number that gradients and perturbations ask about: a target as a function of the pixels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.attribution.model_context import Forward, running
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.target_seeds import asked_of, class_indices, logit_weights, place_of, reading
from ierf.attribution.targets import PFV, Channel, Direction, Latent, Logit, Relevance, Target
from ierf.attribution.token_grid import TokenGrid
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.rules import Backward, record
from ierf.rules.call import Call, Rule


@dataclass(frozen=True)
class Objective:
    """`y(x)`: a logit, a function of the logits, or what a channel, a direction or a latent reads at a layer.

    The target belongs to the samples: a variant of sample i is asked about the target of sample i, and `None` is the
    class predicted for the sample itself, whatever a variant is taken for.
    """

    net: nn.Module
    forward: Forward
    pixels: Float[Tensor, "N C H W"]
    target: Target
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Operations that go another way back than the plain gradient."""

    def __call__(self, images: Float[Tensor, "n S C H W"], samples: slice = slice(None)) -> Float[Tensor, "n S"]:
        """`y` of S variants of each of `samples`, in one forward pass."""
        n = len(self.pixels)
        rows = torch.arange(n)[samples].repeat_interleave(images.shape[1])
        return self._value(images.flatten(0, 1), for_rows(self.target, rows, n)).view(images.shape[:2])

    def record(self, images: Float[Tensor, "N C H W"], encoder: str | None = None) -> RecordedPass:
        """The forward pass itself, with every operation on its tape; without gradients where they are off."""
        fallback = Call.run if torch.is_grad_enabled() else values_only
        backward = Backward()
        forward = self.forward
        tape = record(self.net, images, self.rules, fallback, backward, forward.recorded, forward.plain)
        return RecordedPass(tape, backward, encoder)

    def _value(self, images: Tensor, target: Target) -> Tensor:
        if isinstance(target, Channel | Direction | Latent):
            pfvs, grid = self._pfvs(images, target)
            return reading(pfvs, target, grid).flatten(1).sum(1)
        return logit_value(self.record(images).logits if self.rules else self.forward(images), target)

    def _pfvs(self, images: Tensor, target: Channel | Direction | Latent) -> tuple[Tensor, TokenGrid | None]:
        run = self.record(images)
        node = run.layer(target.layer)
        node = run.entering(node) if isinstance(target, Latent) else node
        return run.tape.nodes[node].tensor.movedim(run.tape.nodes[node].axis, -1), run.grid(node)

    def at_its_place(self) -> Self:
        """The same with a latent's position fixed where it is strongest in the samples themselves."""
        if not isinstance(self.target, Latent) or self.target.position is not None:
            return self
        with torch.no_grad():
            place = place_of(*self._pfvs(self.pixels, self.target)[:1], self.target, None)
        return replace(self, target=replace(self.target, position=place.nonzero()[:, 1:].tolist()))


@contextmanager
def explaining(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target,
    resolution: str,
    rules: Mapping[str, Rule] | None = None,
) -> Iterator[Objective]:
    """The objective of a method whose maps lie on the pixels.

    Raises `IerfError` for another resolution, and for targets that are no number: a PFV, a relevance map.
    """
    only_pixels(resolution)
    if isinstance(target, PFV | Relevance):
        raise IerfError(
            f"this method explains a number, which a {type(target).__name__} is not; "
            "ask for a Direction at its position, or use method 'srd'"
        )
    with running(model, x) as (forward, pixels):
        asked = predicted(forward, pixels, asked_of(target, model.outputs))
        yield Objective(model.net, forward, pixels, asked, rules or {}).at_its_place()


def only_pixels(resolution: str) -> None:
    """An error for a resolution other than "input"."""
    if resolution != "input":
        raise IerfError(f"this method explains by pixels, so its resolution is 'input', not {resolution!r}")


@contextmanager
def explaining_logits(model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target) -> Iterator[Objective]:
    """The objective of a method that knows logits only. Raises `IerfError` for a target at a layer."""
    if isinstance(target, Channel | PFV | Direction | Latent | Relevance):
        raise IerfError(f"this method explains logits, not a {type(target).__name__}; use method 'srd' for that")
    with running(model, x) as (forward, pixels):
        yield Objective(model.net, forward, pixels, predicted(forward, pixels, asked_of(target, model.outputs)))


def values_only(call: Call) -> Any:
    """The operation as it is, nothing kept for a way back."""
    with torch.no_grad():
        return call.run()


def predicted(forward: Forward, pixels: Tensor, target: Target) -> Target:
    """The target itself; for None the classes with the largest logits."""
    if target is not None:
        return target
    with torch.no_grad():
        logits = forward(pixels)
        return logit_weights(logits, None).argmax(1).tolist()


def slope_of(value: Tensor, points: Tensor) -> Tensor:
    """`∂value/∂points`. Raises `IerfError` where the network itself cuts the gradient off, or torch cannot give it."""
    try:
        slope = torch.autograd.grad(value, points, allow_unused=True)[0] if value.requires_grad else None
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise IerfError(f"torch cannot go back through this network: {reason}; method 'srd' may") from error
    if slope is None:
        raise IerfError(
            "the output does not depend on the pixels by any gradient: the network's forward switches gradients off "
            "(torch.no_grad) or detaches what it has computed; explain a network without that"
        )
    return slope


def logit_value(logits: Float[Tensor, "N K"], target: Target) -> Float[Tensor, " N"]:
    """The class's logit, or the function's value, of each sample; differentiable."""
    if not callable(target):
        return (logits * logit_weights(logits.detach(), target)).sum(1)
    value: Tensor = target(logits)
    if value.shape != logits.shape[:1]:
        raise IerfError(f"a target function must return one number per sample, (N,), not {tuple(value.shape)}")
    return value


def for_rows(target: Target, rows: Int[Tensor, " B"], n: int) -> Target:
    """The target of a batch whose row `b` is a variant of sample `rows[b]` of `n`.

    A function is taken as it is: it must treat every row of the logits alike.
    """
    if target is None or callable(target) or isinstance(target, PFV | Relevance):
        return target
    if isinstance(target, Logit | Channel):
        return replace(target, index=_chosen(class_indices(target.index), 0, rows, n).tolist())
    if isinstance(target, Direction | Latent):
        position = None if target.position is None else _chosen(torch.as_tensor(target.position), 1, rows, n).tolist()
        if isinstance(target, Latent):
            return replace(target, index=_chosen(class_indices(target.index), 0, rows, n).tolist(), position=position)
        return replace(target, vector=_chosen(target.vector, 1, rows, n), position=position)
    return _chosen(class_indices(target), 0, rows, n).tolist()


def _chosen(values: Tensor, shared_ndim: int, rows: Tensor, n: int) -> Tensor:
    """What each row gets, of one value for all samples (`shared_ndim` axes, or a single number) or one per sample."""
    if values.numel() == 1 or values.ndim <= shared_ndim:
        return values
    if len(values) != n:
        raise IerfError(f"{len(values)} targets for {n} samples; give one, or one per sample")
    return values[rows.to(values.device)]


def portions(samples: int, variants: int, batch: int) -> Iterator[tuple[slice, slice]]:
    """Blocks (samples, variants) that cover all pairs once, each of at most `batch` pairs; variants run fastest."""
    if batch < 1:
        raise IerfError(f"batch is at least 1, not {batch}")
    for i in range(0, samples, batch):
        n = min(batch, samples - i)
        step = batch // n
        for v in range(0, variants, step):
            yield slice(i, i + n), slice(v, min(v + step, variants))
