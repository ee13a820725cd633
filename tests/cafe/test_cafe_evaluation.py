"""Fig. 7 end to end: what is measured of a latent, resuming, and the tables made of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import stop_after
from support.transformers import LAYER, autoencoder, latent_layer, model, photographs, prepared

from ierf.cafe import build_index, evidence, latent_curves
from ierf.errors import UnknownNameError
from ierf.experiments import Results
from ierf.experiments.cafe import CafeSettings, cafe, chosen, thirds
from ierf.store import open_images

SETTINGS = CafeSettings(("attnlrp", "activation", "random"), latents=4, images=2, points=4)


def run(folder: Path, **options: Any) -> dict[str, Results]:
    saes, photos = {LAYER: autoencoder()}, photographs()
    index = build_index(model(), saes, photos, folder / "index")
    return cafe(model(), saes, index, open_images(photos), folder, SETTINGS, **options)


def test_areas_are_means_over_the_photographs_of_a_latent(tmp_path: Path) -> None:
    found, layer = run(tmp_path), latent_layer()
    index = build_index(model(), {LAYER: autoencoder()}, photographs(), tmp_path / "index")
    latents = chosen(index, LAYER, "class", SETTINGS)
    assert list(found["insertion-class"].values) == [f"{LAYER} class {latent}" for latent in latents]
    examples = index.layer(LAYER, "class").quantiles(latents[0], 2)
    areas = []
    for example in examples:
        x, latent = prepared(layer, [photographs()[example.image]]), torch.tensor([latents[0]])
        scores = evidence(layer, x, latent, torch.tensor([0]), "attnlrp")
        areas.append(latent_curves(layer, x, latent, torch.tensor([0]), scores, points=4).areas())
    expected = [float(torch.cat(one).mean()) for one in zip(*areas, strict=True)]
    for curve, value in zip(("insertion", "deletion"), expected, strict=True):
        assert float(found[f"{curve}-class"].of("attnlrp", LAYER)[0]) == pytest.approx(value, rel=1e-4)


def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop_after(3))
    journal = tmp_path / "cafe.jsonl"
    before = journal.read_text()
    assert len(before.splitlines()) == 4
    again, whole = run(tmp_path), run(tmp_path / "whole")
    assert journal.read_text().startswith(before)
    for name, results in whole.items():
        assert again[name].values == results.values


def test_the_table_of_all_latents_has_the_means_of_the_index(tmp_path: Path) -> None:
    found = run(tmp_path)["index"]
    index = build_index(model(), {LAYER: autoencoder()}, photographs(), tmp_path / "index").layer(LAYER)
    often = index.kept.fired >= 8
    assert 1 < int(often.sum()) < 16
    entropy = index.entropy[often].double()
    summary = found.summary[f"{LAYER} patch"]
    assert summary["entropy"].mean == pytest.approx(float(entropy.mean()), rel=1e-6)
    assert summary["entropy above 0.3"].mean == pytest.approx(float((entropy > 0.3).double().mean()))
    assert summary["frequency"].mean == pytest.approx(float(index.frequency[often].mean()))


def test_thirds_go_by_the_entropy_within_a_layer() -> None:
    values = {
        f"{layer} patch {i}": {"latent": {"entropy": 0.1 * i + shift}}
        for layer, shift in (("a", 0.0), ("b", 5.0))
        for i in (4, 0, 2, 5, 1, 3)
    }
    found = thirds(values, ["a", "b"])
    for layer in ("a", "b"):
        parts = [found[f"{layer} patch {i}"].split()[0] for i in range(6)]
        assert parts == ["local", "local", "middle", "middle", "non-local", "non-local"]


def test_another_attribution_is_named() -> None:
    with pytest.raises(UnknownNameError, match="attribution of latents"):
        CafeSettings(("deeplift",))
