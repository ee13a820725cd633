"""What was conserved and where it leaked: the ledger of a backward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ierf.attribution.attribute import RULES, RelevancePass, relevance_pass
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.targets import Relevance, Target
from ierf.errors import IerfError
from ierf.model import VisionModel, as_vision_model
from ierf.rules import Backward, Place


@dataclass(frozen=True)
class Leak:
    """Relevance that an operation took in and did not pass on (negative: created)."""

    operation: str
    module: str
    amount: float


@dataclass(frozen=True)
class Entry:
    """One stretch of the network, between two maps that every path passes, summed over samples and positions."""

    layer: str
    relevance_in: float
    """Relevance that arrived at the stretch's output."""
    relevance_out: float
    """Relevance that left through its input."""
    leaks: tuple[Leak, ...]

    @property
    def leaked(self) -> float:
        return self.relevance_in - self.relevance_out

    @property
    def unexplained(self) -> float:
        """What leaked at no known operation; rounding, unless a rule is wrong."""
        return self.leaked - sum(leak.amount for leak in self.leaks)


@dataclass(frozen=True)
class Ledger:
    """The relevance at every stage of a backward pass, from the start (first entry) to the pixels (last)."""

    start: str
    entries: tuple[Entry, ...]

    @property
    def relevance_in(self) -> float:
        """Relevance at the start."""
        return self.entries[0].relevance_in

    @property
    def relevance_out(self) -> float:
        """Relevance at the pixels."""
        return self.entries[-1].relevance_out

    @property
    def leaked(self) -> float:
        return self.relevance_in - self.relevance_out

    @property
    def relative_leak(self) -> float:
        """|in − out| / |in|; 0 where nothing came in and nothing went out."""
        return abs(self.leaked) / abs(self.relevance_in) if self.relevance_in else abs(self.relevance_out)

    def conserved(self, tolerance: float = 1e-4) -> bool:
        """Whether pixels and start hold the same relevance, relative to `tolerance` (float32 rounding by default)."""
        return self.relative_leak <= tolerance


def check_conservation(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    method: str = "srd",
    layer: str | None = None,
    *,
    target: Target = None,
    **options: Any,
) -> Ledger:
    """Follow relevance from where it starts to the pixels and account for every loss.

    SRD starts at the encoder output, and `Σ_p R_p = Σ_i R_i^L` holds to rounding for `bias="norm"`. AttnLRP and CP-LRP
    start at the logit; biases, added constants and (AttnLRP) the softmax keep a part. What does not arrive is named by
    layer and operation.

    Args:
        method: "srd", "attnlrp" or "cp_lrp".
        layer: start here, with relevance 1 spread evenly over each sample's positions, instead of at the class.
        options: of the rules: bias (SRD), conv_gamma and linear_gamma (AttnLRP, CP-LRP), unknown.
    """
    if method not in RULES:
        raise IerfError(f"the ledger follows {', '.join(RULES)}; {method!r} does not claim to conserve relevance")
    with relevance_pass(as_vision_model(model), x, method, options, backward=Backward(metered=True)) as run:
        if layer is None:
            return ledger(run, *run.start(target))
        even = _evenly(run, layer)
        return ledger(run, *run.start(even), asked=float(even.map.sum()))


def ledger(run: RecordedPass, start: int, gradient: Tensor, asked: float | None = None) -> Ledger:
    """The account of one backward pass of `gradient` from the node `start`; the pass must be a metered one.

    asked: the relevance wanted at the start, where dead PFVs may not carry all of it.
    """
    stages = [k for k in run.tape.cuts(start) if k < start and run.tape.nodes[k].is_map]
    with run.backward.measuring() as leaks:
        maps = run.carry(start, gradient, [*stages, start])
    sums = [float(m.double().sum()) for m in maps]
    sums[-1] = sums[-1] if asked is None else asked
    ends = [*stages, start]
    entries = [
        Entry(run.tape.describe(after), arrived, left, _leaks_between(leaks, before, after))
        for before, after, left, arrived in zip(ends[:-1], ends[1:], sums[:-1], sums[1:], strict=True)
    ]
    return Ledger(run.tape.describe(start), tuple(reversed(entries)))


def _evenly(run: RelevancePass, layer: str) -> Relevance:
    entry = run.tape.nodes[run.layer(layer)]
    return Relevance(layer, entry.tensor.new_ones(len(entry.tensor), *entry.map_shape) / entry.positions)


def _leaks_between(leaks: dict[Place, float], before: int, after: int) -> tuple[Leak, ...]:
    here = [(place, amount) for place, amount in leaks.items() if before < place.node <= after and amount != 0]
    ordered: Sequence[tuple[Place, float]] = sorted(here, key=lambda item: -abs(item[1]))
    return tuple(Leak(place.operation, place.module, amount) for place, amount in ordered)
