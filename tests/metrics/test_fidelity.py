"""Fidelity, against numpy's correlation of what the model was really shown."""

import numpy as np
import pytest
import torch
from support.networks import Small, Weighted, noise, uniform
from torch import Tensor, nn

from ierf.errors import IerfError, UnknownNameError
from ierf.metrics import fidelity

BELOW = -99.0
"""A baseline that no picture contains."""


def by_numpy(weight: Tensor, x: Tensor, map: Tensor, hidden: Tensor) -> float:
    """The correlation of what a linear model loses with what the map says of what was hidden, (R, C, H, W)."""
    w, picture, relevance, sets = (t.double().numpy() for t in (weight, x, map, hidden))
    drops = [(w * picture).sum() - (w * np.where(one, BELOW, picture)).sum() for one in sets]
    sums = [(relevance * one).sum() for one in sets]
    return float(np.corrcoef(sums, drops)[0, 1])


@pytest.mark.parametrize("size", [(16, 16), (15, 31)])
def test_a_linear_model_is_explained_by_its_terms(size: tuple[int, int]) -> None:
    weight, x = noise(3, *size), noise(4, 3, *size, seed=1)
    terms = (weight * x).sum(1)
    model = Weighted(weight, bias=3.0)
    one = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(fidelity(model, x, 0, terms), one, rtol=0, atol=1e-12)
    torch.testing.assert_close(fidelity(model, x, 1, terms), -one, rtol=0, atol=1e-12)
    assert (fidelity(model, x, 0, (weight * x.flip(0)).sum(1)).abs() < 0.9).all()


def test_the_terms_depend_on_the_baseline() -> None:
    weight, x, start = noise(3, 16, 16), noise(1, 3, 16, 16, seed=1), noise(1, 3, 16, 16, seed=2)
    terms = (weight * (x - start)).sum(1)
    torch.testing.assert_close(
        fidelity(Weighted(weight), x, 0, terms, baseline=start), torch.ones(1, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert fidelity(Weighted(weight), x, 0, terms) < 0.95


@pytest.mark.parametrize("preset", ["paper", "quantus"])
def test_it_is_numpys_correlation_over_what_was_shown(preset: str) -> None:
    model, x, map = Weighted(noise(3, 20, 14)), noise(1, 3, 20, 14, seed=1), noise(1, 20, 14, seed=2)
    score = fidelity(model, x, 0, map, preset=preset, baseline=BELOW)  # type: ignore[arg-type]
    hidden = torch.cat(model.seen) == BELOW
    assert score.item() == pytest.approx(by_numpy(model.weight.detach(), x[0], map[0], hidden), abs=1e-12)
    assert abs(score.item()) < 0.9


def test_the_paper_takes_200_whole_pixels_to_zero() -> None:
    model, x = Weighted(noise(3, 20, 20)), uniform(1, 3, 20, 20) + 1
    fidelity(model, x, 0, x[:, 0], runs=30)
    shown = torch.cat(model.seen)
    changed = shown != x
    assert changed.any(1).sum((1, 2)).tolist() == [200] * 30
    assert torch.equal(changed.all(1), changed.any(1))
    assert (shown[changed] == 0).all()
    assert len({tuple(one.flatten().tolist()) for one in changed}) == 30


def test_quantus_takes_224_single_values_to_the_least_of_their_sample() -> None:
    x = uniform(2, 3, 20, 20) + torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    for i, one in enumerate(x):
        model = Weighted(noise(3, 20, 20))
        fidelity(model, one[None], 0, x[:1, 0], runs=30, preset="quantus")
        shown = torch.cat(model.seen)
        changed = shown != x[i]
        least = int((x[i] == x[i].amin()).sum())
        assert least == 1
        assert set(changed.sum((1, 2, 3)).tolist()) <= {223, 224}
        assert (shown[changed] == x[i].amin()).all()
        assert not torch.equal(changed.all(1), changed.any(1))


def test_every_pixel_is_drawn_equally_often() -> None:
    model, x = Weighted(noise(3, 8, 8)), uniform(1, 3, 8, 8) + 1
    fidelity(model, x, 0, x[:, 0], runs=4000, pixels=16)
    share = (torch.cat(model.seen) == 0)[:, 0].double().mean(0)
    # Six standard deviations of a share of a quarter over 4000 runs.
    assert float((share - 0.25).abs().max()) < 6 * (0.25 * 0.75 / 4000) ** 0.5


def test_scale_and_offset_of_the_map_do_not_matter() -> None:
    model, x, map = Small(), noise(2, 3, 16, 16), noise(2, 16, 16, seed=1)
    expected = fidelity(model, x, 0, map)
    torch.testing.assert_close(fidelity(model, x, 0, 1e6 * map + 5), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(fidelity(model, x, 0, -map), -expected, rtol=1e-9, atol=0)


def test_a_coarse_map_is_enlarged() -> None:
    model, x, coarse = Small(), noise(2, 3, 16, 16), noise(2, 4, 4, seed=1)
    fine = nn.functional.interpolate(coarse[:, None], size=(16, 16), mode="bilinear")[:, 0]
    assert torch.equal(fidelity(model, x, 0, coarse), fidelity(model, x, 0, fine))


@pytest.mark.parametrize("preset", ["paper", "quantus"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_mates_do_not_matter(preset: str, batch: int) -> None:
    model, x, map = Small(), noise(4, 3, 12, 20), noise(4, 12, 20, seed=1)
    options = {"runs": 20, "preset": preset}
    together = fidelity(model, x, None, map, batch=batch, **options)  # type: ignore[arg-type]
    alone = [fidelity(model, x[i : i + 1], None, map[i : i + 1], **options) for i in range(4)]  # type: ignore[arg-type]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


def test_the_seed_decides_the_sets() -> None:
    model, x, map = Small(), noise(1, 3, 16, 16), noise(1, 16, 16, seed=1)
    assert torch.equal(fidelity(model, x, 0, map, seed=5), fidelity(model, x, 0, map, seed=5))
    assert not torch.equal(fidelity(model, x, 0, map, seed=5), fidelity(model, x, 0, map, seed=6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_constant_has_no_correlation(dtype: torch.dtype) -> None:
    model, x = Small().to(dtype), noise(1, 3, 16, 16).to(dtype)
    for constant in (torch.full((1, 16, 16), 0.1), torch.full((1, 5, 7), -0.3), torch.zeros(1, 16, 16)):
        assert fidelity(model, x, 0, constant.to(dtype)).isnan()
    map = noise(1, 16, 16).to(dtype)
    assert fidelity(model, torch.zeros_like(x), 0, map).isnan()
    assert fidelity(Weighted(noise(3, 16, 16)), x.double(), 2, map).isnan()
    assert not fidelity(model, x, 0, map).isnan()


def test_a_nearly_constant_map_still_has_one() -> None:
    weight, x = noise(3, 16, 16), noise(1, 3, 16, 16, seed=1)
    terms = (weight * x).sum(1)
    score = fidelity(Weighted(weight, bias=1e12), x, 0, 1e12 + terms)
    assert score.item() == pytest.approx(1, abs=1e-4)


def test_a_broken_map_has_no_score_and_spoils_no_other() -> None:
    model, x, map = Small(), noise(2, 3, 16, 16), noise(2, 16, 16, seed=1)
    expected = fidelity(model, x, 0, map)
    map[0, 0, 0] = torch.inf
    score = fidelity(model, x, 0, map)
    assert score[0].isnan()
    torch.testing.assert_close(score[1], expected[1], rtol=1e-12, atol=0)
    # Also where no set has drawn the broken pixel.
    assert fidelity(model, x, 0, map, runs=3, pixels=1).isnan().tolist() == [True, False]


def test_a_picture_of_one_pixel_has_only_one_set() -> None:
    x = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    assert fidelity(Weighted(torch.ones(3, 1, 1)), x, 0, torch.ones(1, 1, 1), pixels=1).isnan()
    with pytest.raises(IerfError, match="a set of 200 pixels cannot be drawn from 1"):
        fidelity(Weighted(torch.ones(3, 1, 1)), x, 0, torch.ones(1, 1, 1))


def test_the_model_is_asked_in_eval_mode_and_comes_back_as_it_was() -> None:
    model, x, map = Small().train(), noise(2, 3, 16, 16), noise(2, 16, 16, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = fidelity(model, x, 0, map)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(trained, fidelity(model.eval(), x, 0, map))


def test_what_does_not_fit_is_said() -> None:
    model, x, map = Small(), noise(1, 3, 16, 16), noise(1, 16, 16)
    with pytest.raises(IerfError, match="at least two runs, not 1"):
        fidelity(model, x, 0, map, runs=1)
    with pytest.raises(IerfError, match="choose pixels= between 1 and 256"):
        fidelity(model, x, 0, map, pixels=257)
    with pytest.raises(UnknownNameError, match="did you mean paper"):
        fidelity(model, x, 0, map, preset="papers")  # type: ignore[arg-type]
    with pytest.raises(IerfError, match="2 maps for 1 pictures"):
        fidelity(model, x, 0, noise(2, 16, 16))
