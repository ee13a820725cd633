"""Maps of other networks: weights lost stage by stage (arXiv 1810.03292), other activation functions (Table II)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.experiments.data import DataSet, Photo, drawn
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.local import LocalSettings, Method, measured
from ierf.experiments.results import Better, Results, as_values, curves, spearman, ssim
from ierf.model import Preprocess, VisionModel
from ierf.progress import Progress

SIMILARITIES = ("spearman", "spearman of |map|", "ssim of |map|")


@takes_track
def sanity(
    model: VisionModel,
    data: DataSet,
    methods: Sequence[Method],
    out: Path,
    *,
    depth: int = 2,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Results]:
    """Similarity -> how alike the map of the untouched network is to that after each stage, method by method.

    From the logits down, one stage after the other loses its weights and stays without. The class explained is the
    one that the untouched network predicts. `model` itself is not changed; `sanity.jsonl` in `out` keeps what is
    finished.

    Args:
        depth: so many parts of a layer's name make a stage: 2 randomises "layer4.1" at once, 1 "layer4".
    """
    stages = list(stages_of(model.net, depth))
    header = {
        "experiment": "sanity",
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": f"{data.name} {data.fingerprint}",
        "methods": [method.text for method in methods],
        "depth": depth,
        "seed": seed,
    }
    journal = Journal.open(out / "sanity.jsonl", header)

    def measure(name: str) -> Values:
        return _similarities(model, data.read(name), methods, depth, seed)

    values = run_over(drawn(data, limit, seed), journal, measure, progress)
    everything = Results(f"{model.name} on {data.name}", {}, values, journal.settings, seed=seed)
    return {similarity: _one_similarity(everything, similarity, stages) for similarity in SIMILARITIES}


def stages_of(net: nn.Module, depth: int) -> dict[str, list[nn.Parameter]]:
    """Stage -> its parameters, from the logits down: modules in the order of declaration, backwards."""
    if depth < 1:
        raise IerfError(f"a stage is named by at least one part of a layer's name, not {depth}")
    stages: dict[str, list[nn.Parameter]] = {}
    for name, parameter in reversed(list(net.named_parameters())):
        stages.setdefault(".".join(name.split(".")[:-1][:depth]), []).append(parameter)
    if not stages:
        raise IerfError("the network has no weights to randomise")
    return stages


def cascade(model: VisionModel, depth: int, seed: int) -> Iterator[VisionModel]:
    """A copy of the model after each stage: one object that loses more and more of its weights."""
    copy = replaced_net(model, copied(model.net))
    generator = torch.Generator().manual_seed(seed)
    for parameters in stages_of(copy.net, depth).values():
        for parameter in parameters:
            randomise(parameter, generator)
        yield copy


def copied(net: nn.Module) -> nn.Module:
    """A copy of a network, on any device.

    `deepcopy` copies buffers by their storages, which it can do on few devices; those that share none are cloned here.
    """
    plain = [t for module in net.modules() for t in {**vars(module), **module._buffers}.values() if type(t) is Tensor]
    others = {id(t): t for t in [*plain, *net.parameters()]}.values()
    users = Counter(t.untyped_storage()._cdata for t in others)
    own = [t for t in plain if users[t.untyped_storage()._cdata] == 1]
    return deepcopy(net, {id(t): t.detach().clone().requires_grad_(t.requires_grad) for t in own})


def replaced_net(model: VisionModel, net: nn.Module) -> VisionModel:
    """The same preprocessing and labels around another network."""
    return VisionModel(net, model.preprocess, model.labels, model.name)


@torch.no_grad()
def randomise(parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Normal numbers of the parameter's own mean and standard deviation in its place."""
    values = parameter.detach().double().cpu()
    noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    parameter.copy_(values.mean() + values.std(correction=0) * noise)


def curve_picture(results: Results) -> bytes | None:
    """The mean similarity of each method along the stages, as PNG; None without matplotlib."""
    lines = {row: [cell.mean for cell in cells.values()] for row, cells in results.summary.items()}
    return curves(lines, list(results.columns), results.title)


def _similarities(model: VisionModel, photo: Photo, methods: Sequence[Method], depth: int, seed: int) -> Values:
    """Method -> "similarity/stage" -> value."""
    x = model.prepare(photo.image)
    with torch.no_grad():
        target = [int(model(x).argmax())]
    before = [method(model, x, target)[0] for method in methods]
    found: dict[str, dict[str, float]] = {method.text: {} for method in methods}
    for stage, randomised in zip(stages_of(model.net, depth), cascade(model, depth, seed), strict=True):
        for method, original in zip(methods, before, strict=True):
            after = method(randomised, x, target)[0]
            scores = (spearman(original, after), spearman(original.abs(), after.abs()), ssim(original, after))
            of_stage = {f"{name}/{stage}": score for name, score in zip(SIMILARITIES, scores, strict=True)}
            found[method.text] |= of_stage
    return {row: as_values(cells) for row, cells in found.items()}


def _one_similarity(everything: Results, similarity: str, stages: Sequence[str]) -> Results:
    values = {
        image: {row: {stage: cells[f"{similarity}/{stage}"] for stage in stages} for row, cells in rows.items()}
        for image, rows in everything.values.items()
    }
    title = f"{similarity} to the map before, {everything.title}"
    return replace(everything, title=title, columns=dict.fromkeys(stages, ""), values=values)


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}
"""Table II's columns."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PREPROCESS = Preprocess(size=(32, 32), resize=32)


class CifarResNet(nn.Module):
    """Three stages of two residual blocks, widths 16, 32, 64, each but the first at half the resolution."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.stem = nn.Sequential(*_conv(3, 16, 1), act())
        stages = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.stages = nn.Sequential(
            *(nn.Sequential(Block(a, b, s, act), Block(b, b, 1, act)) for a, b, s in stages),
        )
        self.head = nn.Linear(64, len(CLASSES))

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 10"]:
        logits: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return logits


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, added before the last activation."""

    def __init__(self, n_in: int, n_out: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(n_in, n_out, stride), activation(), *_conv(n_out, n_out, 1))
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(n_in, n_out, stride, kernel=1))
        self.act = activation()

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        out: Tensor = self.act(self.body(x) + self.shortcut(x))
        return out


def load_checkpoints(folder: Path) -> dict[str, VisionModel]:
    """Activation -> the network of `folder/ACTIVATION.safetensors`, in evaluation mode, for those that are there."""
    found = {name: folder / f"{name}.safetensors" for name in ACTIVATIONS}
    models = {name: _loaded(name, path) for name, path in found.items() if path.is_file()}
    if not models:
        raise IerfError(
            f"{str(folder)!r} holds no checkpoint ({', '.join(f'{name}.safetensors' for name in ACTIVATIONS)}); "
            "scripts/train_cifar_activations.py makes them"
        )
    return models


def _loaded(activation: str, path: Path) -> VisionModel:
    net = CifarResNet(activation)
    weights = load_file(path)
    lacking = sorted(name for name in net.state_dict().keys() ^ weights.keys() if "num_batches" not in name)
    if lacking:
        raise IerfError(f"{str(path)!r} is no checkpoint of this network: {lacking[0]!r} is in one of them only")
    net.load_state_dict(weights, strict=False)
    return VisionModel(net.eval(), PREPROCESS, CLASSES, f"CIFAR ResNet, {activation}")


def _conv(n_in: int, n_out: int, stride: int, kernel: int = 3) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out)


NOT_FOR: Mapping[str, frozenset[str]] = {
    "lrp_zplus": frozenset({"elu", "leaky_relu", "swish", "gelu", "tanh"}),
    "guided_backprop": frozenset({"tanh"}),
}
"""Cells that stay empty: LRP-z⁺ outside ReLU, as in the paper; guided backpropagation where nothing is a rectifier."""

TABLE = (
    *("gradient", "guided_backprop", "gradient_x_input", "integrated_gradients", "lrp_zplus", "smoothgrad", "fullgrad"),
    *("gradcam", "scorecam", "ablationcam", "xgradcam", "layercam", "srd", "random"),
)


@takes_track
def activations(
    models: Mapping[str, VisionModel],
    data: DataSet,
    methods: Sequence[Method],
    out: Path,
    settings: LocalSettings | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Results:
    """The fidelity of each method (rows) on each activation's network (columns), for the photographs' labels.

    `activations.jsonl` in `out` keeps what is finished.

    Args:
        models: activation -> network. What `NOT_FOR` names is left out.
    """
    settings = settings or LocalSettings(("fidelity",))
    header = {
        "experiment": "activations",
        "models": {name: model_fingerprint(model) for name, model in models.items()},
        "data": f"{data.name} {data.fingerprint}",
        "methods": [method.text for method in methods],
        **asdict(settings),
    }
    journal = Journal.open(out / "activations.jsonl", header)

    def measure(name: str) -> Values:
        photo = data.read(name)
        rows: dict[str, dict[str, float | None]] = {method.text: dict.fromkeys(models) for method in methods}
        for activation, model in models.items():
            found = (
                measured(model, photo, [m for m in methods if activation not in NOT_FOR.get(m.name, ())], settings)
                or {}
            )
            for row, cells in found.items():
                rows[row][activation] = cells["fidelity"]
        return rows

    values = run_over(drawn(data, limit, settings.seed), journal, measure, progress)
    columns: dict[str, Better] = dict.fromkeys(models, "higher")
    return Results(f"Fidelity by activation on {data.name}", columns, values, journal.settings, seed=settings.seed)
