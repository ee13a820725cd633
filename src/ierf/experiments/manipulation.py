"""Fig. 4: how far a perturbation that nobody sees moves an explanation to another photograph's (IV-B3, Eq. 7).

The attack goes through the explanation, so maps are differentiable functions of the pixels: a backward pass whose rules
are recorded in turn (`create_graph`). What is differentiated the second time is the network's own forward pass, so that
pass takes plain gradients: `Backward.as_gradient`. Where second derivatives vanish, a ReLU becomes a softplus
`log(1 + exp(β z)) / β` (Dombrowski et al., arXiv 1906.07983, Sec. 3), which is the ReLU for large β.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from PIL import Image
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from ierf.attribution.gradients import RECTIFIERS, strongest_channel
from ierf.attribution.model_context import running
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.target_seeds import logit_weights
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.data import DataSet
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Better, Results, as_values, pearson, ssim
from ierf.files import write
from ierf.model import Preprocess, VisionModel
from ierf.progress import Progress
from ierf.report import overlay
from ierf.rules import Backward, SRDRules, as_cotangent, as_relevance, record
from ierf.rules.call import Call, Rule
from ierf.rules.primitives import through
from ierf.rules.zplus import zplus_table

Trace = Callable[[Mapping[str, Rule], Rule, Tensor], RecordedPass]
"""(rules, rule for the rest, pixels) -> the forward pass."""

STEPS = 8
"""Points on the way of integrated gradients; each costs three passes in every step of an attack."""


@dataclass(frozen=True)
class Explained:
    """A map and the logits, both with the graph that leads back to the pixels."""

    pixels: Float[Tensor, "N 3 H W"]
    map: Float[Tensor, "N H W"]
    logits: Float[Tensor, "N K"]
    backward: Backward

    def gradient(self, loss: Float[Tensor, ""]) -> Float[Tensor, "N 3 H W"]:
        """`∂loss/∂pixels` of a function of the map and the logits."""
        with self.backward.as_gradient():
            return torch.autograd.grad(loss, self.pixels)[0]


@contextmanager
def explained(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Sequence[int], method: str, beta: float | None = None
) -> Iterator[Explained]:
    """The map of a method for one class per sample, differentiable.

    The class matters to all but "srd", whose `μ^{L→O}` is 1 everywhere (arXiv 2605.00474, IV-B3): the sum of the iERFs
    of all PFVs at the encoder output.

    Args:
        method: one of `MAPS`.
        beta: of the softplus in place of every ReLU; None keeps the ReLUs.
    """
    if method not in MAPS:
        raise UnknownNameError("differentiable method", method, MAPS)
    with running(model, x) as (forward, pixels):
        backward = Backward()

        def trace(rules: Mapping[str, Rule], fallback: Rule, images: Tensor) -> RecordedPass:
            table = rules if beta is None else softened(beta, rules, fallback)
            return RecordedPass(record(model.net, images, table, fallback, backward, forward.recorded), backward)

        map, logits = MAPS[method](trace, pixels, target)
        yield Explained(pixels, map, logits, backward)


def soft_logits(model: VisionModel, x: Float[Tensor, "N 3 H W"], beta: float) -> Float[Tensor, "N K"]:
    """The logits with a softplus in place of every ReLU."""
    with running(model, x) as (forward, pixels):
        rules, backward = softened(beta, {}, Call.run), Backward()
        tape = record(model.net, pixels, rules, Call.run, backward, forward.recorded)
        return tape.settle(tape.output).detach()


def softened(beta: float, rules: Mapping[str, Rule], fallback: Rule) -> dict[str, Rule]:
    """The rules, with a softplus computed in place of ReLU and ReLU6."""
    names = ("relu", "relu6", "hardtanh")
    return {**rules, **{name: partial(_soft, beta, rules.get(name, fallback)) for name in names}}


def _soft(beta: float, rule: Rule, call: Call) -> Any:
    given = call.given("input", "min_val", "max_val")
    low, high = {"relu": (0.0, None), "relu6": (0.0, 6.0)}.get(
        call.name, (given.get("min_val", -1.0), given.get("max_val", 1.0))
    )
    call.func, call.args, call.kwargs = partial(_soft_clamp, beta, low, high), (given["input"],), {}
    return rule(call)


def _soft_clamp(beta: float, low: float, high: float | None, z: Tensor) -> Tensor:
    """`low + softplus(z − low) − softplus(z − high)`."""
    above = low + F.softplus(z - low, beta)
    return above if high is None else above - F.softplus(z - high, beta)


def _gradient(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    slope, logits = _slope(trace, {}, pixels, target)
    return strongest_channel(slope), logits


def _gradient_x_input(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    slope, logits = _slope(trace, {}, pixels, target)
    return (pixels * slope).sum(1), logits


def _guided_backprop(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    slope, logits = _slope(trace, dict.fromkeys(RECTIFIERS | {"hardtanh"}, _guided), pixels, target)
    return strongest_channel(slope), logits


def _integrated_gradients(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    """From a baseline of zeros."""
    points, weights = (torch.from_numpy(numbers).to(pixels) for numbers in leggauss(STEPS))
    alpha, weight = (t.view(-1, 1, 1, 1, 1) for t in ((points + 1) / 2, weights / 2))
    slope, _ = _slope(trace, {}, (alpha * pixels).flatten(0, 1), list(target) * STEPS)
    average = (weight * slope.view(STEPS, *pixels.shape)).sum(0)
    return (pixels * average).sum(1), trace({}, Call.run, pixels).logits


def _lrp_zplus(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    table, fallback = zplus_table()
    logits = trace(table, fallback, pixels).logits
    (slope,) = torch.autograd.grad(logits, pixels, logit_weights(logits.detach(), list(target)), create_graph=True)
    return slope.sum(1), logits


def _srd(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    rules = SRDRules()
    run = trace(rules.table(), rules.fallback, pixels)
    entry = run.tape.nodes[run.encoder]
    everywhere = torch.ones(len(pixels), *entry.map_shape).to(pixels)
    cotangent = as_cotangent(everywhere, entry.tensor, entry.axis)
    (slope,) = torch.autograd.grad(run.tape.settle(run.encoder), pixels, cotangent, create_graph=True)
    return as_relevance(slope, pixels, 1), run.logits


MAPS: Mapping[str, Callable[[Trace, Tensor, Sequence[int]], tuple[Tensor, Tensor]]] = {
    "srd": _srd,
    "gradient": _gradient,
    "gradient_x_input": _gradient_x_input,
    "guided_backprop": _guided_backprop,
    "integrated_gradients": _integrated_gradients,
    "lrp_zplus": _lrp_zplus,
}
"""Method -> (map, logits). Fig. 4's methods."""


def _slope(
    trace: Trace, rules: Mapping[str, Rule], images: Tensor, target: Sequence[int]
) -> tuple[Float[Tensor, "N 3 H W"], Float[Tensor, "N K"]]:
    """`∂y/∂x` by the way back of `rules`, and the logits."""
    logits = trace(rules, Call.run, images).logits
    weights = logit_weights(logits.detach(), list(target))
    return torch.autograd.grad(logits, images, weights, create_graph=True)[0], logits


def _guided(call: Call) -> Tensor:
    return through(_PositiveGradient, call.run(), call.backward)


class _PositiveGradient(Function):
    """As in guided backpropagation, but for the second pass."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, backward: Backward) -> Tensor:
        ctx.switch = backward
        return a.view_as(a)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad if ctx.switch.plain else grad.clamp_min(0), None


COLUMNS: Mapping[str, Better] = {
    "ssim": "higher",
    "pcc": "higher",
    "pcc to target": "lower",
    "class kept": "",
    "mse": "",
}
"""Likeness of the maps before and after; of the map after to the one aimed at; what became of class and pixels."""


@dataclass(frozen=True)
class Attack:
    """`L = λ₁ ‖φ(x_adv) − φ(x_target)‖² + λ₂ ‖F(x_adv) − F(x)‖²` by Adam; both norms are means of squares.

    Maps are absolute and sum to 1, as in Dombrowski et al., arXiv 1906.07983, whose softplus grows from `betas[0]` to
    `betas[1]` in equal ratios.
    """

    explanation: float = 1e11
    """λ₁."""
    output: float = 1e6
    """λ₂."""
    rate: float = 1e-3
    """Adam's, in units of x."""
    mse: float = 1e-3
    """Stop once `mean (x_adv − x)²` reaches this, in units of x."""
    bound: float = 8 / 255
    """Largest change of a colour channel, where white is 1."""
    steps: int = 300
    """At most."""
    betas: tuple[float, float] = (10.0, 100.0)

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.rate, self.bound, *self.betas) <= 0:
            raise IerfError(f"an attack needs steps, a rate, a bound and betas above zero, not {asdict(self)}")

    def beta(self, step: int) -> float:
        low, high = self.betas
        return float(low * (high / low) ** (step / max(1, self.steps - 1)))


def manipulate(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], towards: Float[Tensor, "N 3 H W"], method: str, attack: Attack
) -> Float[Tensor, "N 3 H W"]:
    """`x_adv`: `x` with its explanation moved towards that of `towards`, each of its own predicted class.

    It stays within `attack.bound` of x and within black and white, by the model's preprocessing.
    """
    classes, _ = _predicted(model, x)
    aim = absolute_map(model, towards, _predicted(model, towards)[0], method)
    low, high = allowed(x, model.preprocess, attack.bound)
    adversary = x.clone()
    optimizer = torch.optim.Adam([adversary], lr=attack.rate)
    for step in range(attack.steps):
        beta = attack.beta(step)
        logits = soft_logits(model, x, beta)
        with explained(model, adversary, classes, method, beta) as found:
            off_aim = (_shares(found.map) - _shares(aim)).square().mean((1, 2)).sum()
            off_output = (found.logits - logits).square().mean(1).sum()
            adversary.grad = found.gradient(attack.explanation * off_aim + attack.output * off_output)
        before = adversary.clone()
        optimizer.step()
        adversary.copy_(adversary.clamp(low, high))
        if float((adversary - x).square().mean()) >= attack.mse:
            return before
    return adversary


def allowed(x: Float[Tensor, "N 3 H W"], preprocess: Preprocess, bound: float) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each pixel: within `bound` of x, and no blacker than black."""
    mean, std = (part.to(x) for part in preprocess.statistics)
    return torch.maximum(x - bound / std, (0 - mean) / std), torch.minimum(x + bound / std, (1 - mean) / std)


def absolute_map(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Sequence[int], method: str
) -> Float[Tensor, "N H W"]:
    """|φ| of the network as it is."""
    with explained(model, x, target, method) as found:
        return found.map.detach().abs()


@takes_track
def manipulation(
    model: VisionModel,
    data: DataSet,
    methods: Sequence[str],
    out: Path,
    attack: Attack | None = None,
    *,
    limit: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """How alike the maps before and after the attack are, for `limit` pairs of photographs drawn by the seed.

    Maps are absolute, those of the network as it is (no softplus). `manipulation.jsonl` in `out` keeps what is
    finished, `pairs/` a picture of each pair.
    """
    attack = attack or Attack()
    header = {
        "experiment": "manipulation",
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": f"{data.name} {data.fingerprint}",
        "methods": list(methods),
        "seed": seed,
        **asdict(attack),
    }
    journal = Journal.open(out / "manipulation.jsonl", header)
    pairs = {f"{one} → {other}": (one, other) for one, other in drawn_pairs(data, limit, seed)}

    def measure(name: str) -> Values:
        photos = [data.read(photo).image for photo in pairs[name]]
        rows, picture = _attacked(model, photos, methods, attack)
        write(out / "pairs" / f"{list(pairs).index(name):03d}.png", picture)
        return rows

    values = run_over(list(pairs), journal, measure, progress)
    return Results(f"Manipulated maps, {model.name} on {data.name}", COLUMNS, values, journal.settings, seed=seed)


def drawn_pairs(data: DataSet, limit: int, seed: int) -> Iterator[tuple[str, str]]:
    """Pairs of different photographs, none twice; more pairs contain fewer."""
    if limit > len(data.names) // 2:
        raise IerfError(f"{limit} pairs need {2 * limit} photographs; {data.name!r} has {len(data.names)}")
    order = torch.randperm(len(data.names), generator=torch.Generator().manual_seed(seed)).tolist()
    for i in range(limit):
        yield data.names[order[2 * i]], data.names[order[2 * i + 1]]


def _attacked(
    model: VisionModel, photos: Sequence[Image.Image], methods: Sequence[str], attack: Attack
) -> tuple[Values, bytes]:
    """The scores by method; and a picture: for each method the maps of both photographs and the manipulated one."""
    x, towards = (model.prepare(photo) for photo in photos)
    (classes, _), (aims, _) = _predicted(model, x), _predicted(model, towards)
    views = [model.view(photo) for photo in photos]
    rows, strips = {}, []
    for method in methods:
        adversary = manipulate(model, x, towards, method, attack)
        before, aim = absolute_map(model, x, classes, method)[0], absolute_map(model, towards, aims, method)[0]
        after = absolute_map(model, adversary, classes, method)[0]
        scores = {
            "ssim": ssim(before, after),
            "pcc": pearson(before, after),
            "pcc to target": pearson(aim, after),
            "class kept": float(_predicted(model, adversary)[0] == classes),
            "mse": float((adversary - x).square().mean()),
        }
        rows[method] = as_values(scores)
        seen = model.preprocess.picture(adversary[0])
        shown = ((views[0], before), (seen, after), (views[1], aim))
        strips.append([seen, *(overlay(view, map.cpu().numpy()) for view, map in shown)])
    return rows, _sheet([[views[0], views[1]], *strips])


def _predicted(model: VisionModel, x: Tensor) -> tuple[list[int], Tensor]:
    with torch.no_grad():
        logits = model(x)
    return logits.argmax(1).tolist(), logits


def _shares(map: Float[Tensor, "N H W"]) -> Float[Tensor, "N H W"]:
    """|φ| / Σ|φ|."""
    absolute = map.abs()
    return absolute / absolute.sum((1, 2), keepdim=True).clamp_min(torch.finfo(map.dtype).tiny)


def _sheet(rows: Sequence[Sequence[Image.Image]], side: int = 128, gap: int = 4) -> bytes:
    """Pictures in rows, as PNG."""
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", ((side + gap) * columns - gap, (side + gap) * len(rows) - gap), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture.resize((side, side)), ((side + gap) * x, (side + gap) * y))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
