"""Table III and the stability of extractors: figures by hand, nothing that was held out is fitted, runs that resume."""

import json
import signal
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from jaxtyping import Float
from support.banks import small_model, small_store
from support.runs import in_a_process, stop_after
from torch import Tensor
from typer.testing import CliRunner

from ierf.cli import main
from ierf.concepts import EXTRACTORS, SAE
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.extractors import (
    FitSettings,
    all_fitted,
    concept_stability,
    extractors,
    fitted,
    parse_recipes,
    quality,
)
from ierf.store import PFVStore

SETTINGS = FitSettings(n_concepts=6, l0_ratio=0.7, held_out=5, seed=2)


class Axes:
    """An extractor whose atoms are the channels, the first one turned by further seeds; it notes what it gets."""

    fits: list[Tensor] = []  # noqa: RUF012

    def __init__(self, n_concepts: int, seed: int = 0, shift: Any = None) -> None:
        self.seed, self.config = seed, {"name": "axes"}

    def fit(self, x: Float[Tensor, "N C"]) -> Self:
        Axes.fits.append(x)
        self.components_ = torch.eye(x.shape[1])
        angle = torch.tensor(0.1 * (self.seed - SETTINGS.seed))
        self.components_[0, :2] = torch.stack([angle.cos(), angle.sin()])
        self.shift_ = torch.zeros(x.shape[1])
        return self

    def transform(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Only the second channel."""
        codes = torch.zeros_like(x)
        codes[:, 1] = x[:, 1]
        return codes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PFVStore:
    return small_store(tmp_path_factory.mktemp("small"), small_model())


@pytest.fixture(autouse=True)
def _axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "axes", Axes)  # type: ignore[arg-type]
    Axes.fits = []


def test_quality_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    made = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    found = quality(x, made, torch.tensor([1, 3]), 4, torch.tensor([0.0, 3.0]))
    expected = torch.tensor([[3 / 5, torch.inf], [3 / 10**0.5, 2 / 3], [0.75, 0.25]])
    torch.testing.assert_close(found, expected)


def test_held_out_photographs_are_the_same_everywhere_and_never_fitted(store: PFVStore, tmp_path: Path) -> None:
    results = extractors(store, parse_recipes(["axes"]), tmp_path, SETTINGS)
    photographs = [int(name.split()[0]) for name in results["relative error"].values]
    assert len(photographs) == 5
    for layer, seen in zip(store.layers, Axes.fits, strict=True):
        stored = store.layer(layer)
        rest = stored.pfvs.torch(np.flatnonzero(~np.isin(stored.images, photographs))).float()
        assert torch.equal(seen, rest)
        assert len(rest) == 2 * (len(store) - 5)


def test_every_number_is_that_of_the_held_out_pfvs(store: PFVStore, tmp_path: Path) -> None:
    """Own codes keep one channel. On orthonormal atoms the Lasso is soft thresholding."""
    results = extractors(store, parse_recipes(["axes"]), tmp_path, SETTINGS, layers=["act2"])
    (one,) = all_fitted(tmp_path)
    stored, shift = store.layer("act2"), store.layer("act2").shift
    assert shift is not None
    for name in results["relative error"].values:
        x = stored.pfvs.torch(np.flatnonzero(stored.images == int(name.split()[0]))).float()
        only = torch.zeros_like(x)
        only[:, 1] = x[:, 1]
        kept = x.sign() * (x.abs() - one.lam).clamp_min(0)
        length = torch.linalg.vector_norm
        for codes, made in (("own codes", only), ("Lasso", kept)):
            expected = {
                "relative error": (length(x - made, dim=1) / length(x, dim=1)).mean(),
                "relative error shifted": (length(x - made, dim=1) / length(x - shift, dim=1)).mean(),
                "l0 ratio": 1 - (made != 0).sum(1).float().mean() / 8,
            }
            for measure, value in expected.items():
                assert results[measure].values[name][f"axes {codes}"]["act2"] == pytest.approx(float(value), rel=1e-3)


def test_a_resumed_run_fits_nothing_twice_and_ends_like_an_unbroken_one(store: PFVStore, tmp_path: Path) -> None:
    recipes = parse_recipes(["bisecting", "axes"])
    whole = extractors(store, recipes, tmp_path / "whole", SETTINGS)
    Axes.fits = []
    for count in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            extractors(store, recipes, tmp_path / "broken", SETTINGS, progress=stop_after(count))
    resumed = extractors(store, recipes, tmp_path / "broken", SETTINGS)
    assert len(Axes.fits) == 2
    assert [r.json() for r in resumed.values()] == [r.json() for r in whole.values()]
    (tmp_path / "broken" / "extractors.jsonl").unlink()
    extractors(store, recipes, tmp_path / "broken", SETTINGS)
    assert len(Axes.fits) == 2


def test_what_was_fitted_otherwise_is_refused(store: PFVStore, tmp_path: Path) -> None:
    recipes = parse_recipes(["bisecting"])
    extractors(store, recipes, tmp_path, SETTINGS)
    with pytest.raises(IerfError, match=r"l0_ratio: 0\.7 there, 0\.8 here"):
        extractors(store, recipes, tmp_path, FitSettings(6, 0.8, 5, 2))
    (tmp_path / "extractors.jsonl").unlink()
    with pytest.raises(IerfError, match="l0_ratio"):
        extractors(store, recipes, tmp_path, FitSettings(6, 0.8, 5, 2))


def test_an_autoencoder_comes_back_with_its_own_codes(store: PFVStore, tmp_path: Path) -> None:
    (recipe,) = parse_recipes(["sae_topk?samples=256&batch=32"])
    first, again = (fitted(store, "act2", recipe, 4, SETTINGS, tmp_path) for _ in range(2))
    assert isinstance(again.sae, SAE)
    assert first.sae is not None
    assert (again.sae.k, again.sae.n_latents, again.sae.seed, again.sae.schedule.samples) == (2, 6, 4, 256)
    x = store.layer("act2").pfvs.torch(slice(4)).float()
    assert torch.equal(again.sae.transform(x), first.sae.transform(x))
    made = again.sae.transform(x) @ again.atoms + again.shift
    torch.testing.assert_close(made, again.sae(x).detach())


def test_dictionary_learning_is_left_out_of_wide_layers(store: PFVStore, tmp_path: Path) -> None:
    recipes = parse_recipes(["axes", "dictionary"])
    results = extractors(store, recipes, tmp_path, SETTINGS, dictionary_limit=5)
    assert set(results["l0 ratio"].rows) == {"axes own codes", "axes Lasso"}
    with pytest.raises(IerfError, match="too slow"):
        extractors(store, recipes[1:], tmp_path / "other", SETTINGS, dictionary_limit=5)


def test_recipes_are_named_with_options() -> None:
    one, other = parse_recipes(["bisecting,sae_topk?k=3&samples=10", "bisecting"])
    assert (one.text, one.options) == ("bisecting", {})
    assert (other.name, other.options) == ("sae_topk", {"k": 3, "samples": 10})
    assert other.make(50, 8, 0, None, 0.9).k == 3  # type: ignore[attr-defined]
    assert parse_recipes(["sae_l1"])[0].make(50, 8, 0, None, 0.9).k == 5  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match="bisecting"):
        parse_recipes(["bisectin"])
    with pytest.raises(IerfError, match="name=value"):
        parse_recipes(["sae_topk?k"])


def test_stability_by_hand(store: PFVStore, tmp_path: Path) -> None:
    """Seeds turn one of the atoms by 0.1: all others match themselves."""
    found = concept_stability(store, parse_recipes(["axes"]), tmp_path, SETTINGS, seeds=3, layers=["act2"])
    values = {name: rows["axes"]["act2"] for name, rows in found["matched cosine"].values.items()}
    near, far = ((7 + float(np.cos(0.1 * k))) / 8 for k in (1, 2))
    assert values == pytest.approx({"seeds 2 and 3": near, "seeds 2 and 4": far, "seeds 3 and 4": near})
    again = found["found again"]
    assert [rows["axes"]["act2"] for rows in again.values.values()] == [1, 1, 1]
    assert "3 pairs" not in again.title
    assert json.loads(again.json())["pairs"] == again.values
    with pytest.raises(IerfError, match="two seeds"):
        concept_stability(store, parse_recipes(["axes"]), tmp_path, SETTINGS, seeds=1)


def test_stability_uses_the_fits_of_the_table(store: PFVStore, tmp_path: Path) -> None:
    extractors(store, parse_recipes(["axes"]), tmp_path, SETTINGS, layers=["act1"])
    concept_stability(store, parse_recipes(["axes"]), tmp_path, SETTINGS, seeds=2, layers=["act1"])
    assert len(Axes.fits) == 2


def command(store: Path, out: Path) -> list[str]:
    chosen = ["-e", "bisecting,sae_topk?samples=1000&batch=32", "-k", "6", "--l0-ratio", "0.7", "--held-out", "5"]
    return ["evaluate", "extractors", "--store", str(store), *chosen, "--out", str(out)]


def test_a_killed_command_goes_on_to_the_same_json(store: PFVStore, tmp_path: Path) -> None:
    assert CliRunner().invoke(main, command(store.path, tmp_path / "whole")).exit_code == 0
    killed = command(store.path, tmp_path / "killed")
    process = in_a_process(killed)
    journal, end = tmp_path / "killed" / "extractors.jsonl", time.monotonic() + 120
    while time.monotonic() < end and not journal.exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    assert not (tmp_path / "killed" / "l0-ratio.json").exists()
    assert CliRunner().invoke(main, killed).exit_code == 0
    assert journal.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    for name in ("relative-error", "relative-error-shifted", "l0-ratio"):
        whole, resumed = ((tmp_path / run / f"{name}.json").read_text() for run in ("whole", "killed"))
        assert resumed == whole


def test_both_commands_write_their_tables(store: PFVStore, tmp_path: Path) -> None:
    common = ["--store", str(store.path), "-e", "bisecting", "-k", "6", "--held-out", "5", "--out", str(tmp_path)]
    for name in (["extractors", "--l0-ratio", "0.7"], ["concept-stability", "--l0-ratio", "0.7", "--seeds", "2"]):
        result = CliRunner().invoke(main, ["evaluate", *name, *common])
        assert result.exit_code == 0, result.stderr
    for file in ("relative-error.md", "l0-ratio.csv", "relative-error-shifted.json", "matched-cosine.csv"):
        assert (tmp_path / file).exists()
    assert "seeds" not in (tmp_path / "l0-ratio.csv").read_text()
    assert (tmp_path / "matched-cosine.csv").read_text().splitlines()[0] == "extractor,column,mean,low,high,pairs"
