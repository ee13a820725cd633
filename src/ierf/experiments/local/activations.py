"""Table II: fidelity of many methods on one network, trained with different activation functions (IV-B4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.experiments.data import DataSet, drawn
from ierf.experiments.journal import Journal, Track, Values, model_fingerprint, run_over
from ierf.experiments.local.scores import LocalSettings, measured
from ierf.experiments.methods import Method
from ierf.experiments.results import Better, Results
from ierf.model import Preprocess, VisionModel

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


def activations(
    models: Mapping[str, VisionModel],
    data: DataSet,
    methods: Sequence[Method],
    out: Path,
    settings: LocalSettings | None = None,
    *,
    limit: int | None = None,
    track: Track = iter,
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

    values = run_over(drawn(data, limit, settings.seed), journal, measure, track)
    columns: dict[str, Better] = dict.fromkeys(models, "higher")
    return Results(f"Fidelity by activation on {data.name}", columns, values, journal.settings, seed=settings.seed)
