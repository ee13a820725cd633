"""Fig. 4: how far a perturbation that nobody sees can move an explanation to another photograph's (IV-B3, Eq. 7)."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ierf.errors import IerfError
from ierf.experiments.data import DataSet
from ierf.experiments.identity import model_fingerprint
from ierf.experiments.journal import Journal, Track, Values, run_over
from ierf.experiments.local.differentiable import explained, soft_logits
from ierf.experiments.local.similarity import pearson, ssim
from ierf.experiments.results import Better, Results, as_values
from ierf.files import write
from ierf.model import Preprocess, VisionModel
from ierf.report.pictures import overlay

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


def manipulation(
    model: VisionModel,
    data: DataSet,
    methods: Sequence[str],
    out: Path,
    attack: Attack | None = None,
    *,
    limit: int = 100,
    seed: int = 0,
    track: Track = iter,
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

    values = run_over(list(pairs), journal, measure, track)
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
