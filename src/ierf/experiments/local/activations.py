"""Table II: fidelity of many methods on one network, trained with different activation functions (IV-B4)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ierf.experiments.data import DataSet, drawn
from ierf.experiments.identity import model_fingerprint
from ierf.experiments.journal import Journal, Track, Values, run_over
from ierf.experiments.local.scores import LocalSettings, measured
from ierf.experiments.methods import Method
from ierf.experiments.results import Better, Results
from ierf.model import VisionModel

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
