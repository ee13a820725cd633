"""Stability, of explainers whose change is known."""

import pytest
import torch
from support.networks import noise
from torch import Tensor

from ierf.errors import IerfError
from ierf.metrics import stability


class Watched:
    """An explainer that remembers what it was asked about."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x[:, 0] * x[:, 1] + x[:, 2]


def corner(x: Tensor) -> Tensor:
    """A linear map whose largest value is always 8: normalised, it is the first channel's first pixel over 8."""
    map = torch.zeros(len(x), 1, 2, dtype=x.dtype)
    map[:, 0, 0], map[:, 0, 1] = x[:, 0, 0, 0], 8
    return map


def test_a_linear_explainer_by_hand() -> None:
    watched = Watched()

    def explain(x: Tensor) -> Tensor:
        watched(x)
        return corner(x)

    x = noise(2, 1, 1, 2).expand(-1, 3, -1, -1)
    score = stability(explain, x, samples=50)
    noisy = torch.cat(watched.seen[1:]).view(50, 2, 3, 1, 2)
    change = noisy - x
    ratio = change[:, :, 0, 0, 0].abs() / 8 / change.flatten(2).norm(dim=2)
    torch.testing.assert_close(score, ratio.amax(0), rtol=1e-9, atol=0)
    assert (score <= 1 / 8).all()


def test_of_one_pixel_only_the_sign_is_left() -> None:
    watched = Watched()

    def explain(x: Tensor) -> Tensor:
        watched(x)
        return x[:, 0]

    x = torch.tensor([3.0, 0.01], dtype=torch.float64).view(2, 1, 1, 1).expand(-1, 3, 1, 1)
    score = stability(explain, x, samples=20)
    noisy = torch.cat(watched.seen[1:]).view(20, 2, 3)[:, 1]
    turned = noisy[noisy[:, 0] < 0]
    assert score[0] == 0
    assert score[1].item() == pytest.approx(float((2 / (turned - 0.01).norm(dim=1)).max()))


def test_it_is_the_largest_ratio_of_a_loop() -> None:
    watched, x = Watched(), noise(3, 3, 6, 4)
    score = stability(watched, x, samples=30, batch=11)
    shown = torch.cat(watched.seen)
    assert torch.equal(shown[:3], x)
    expected = torch.zeros(3, dtype=torch.float64)
    for k, one in enumerate(shown[3:]):
        i = k % 3
        before, after = (p[0] * p[1] + p[2] for p in (x[i], one))
        change = (before / before.abs().max() - after / after.abs().max()).norm()
        expected[i] = max(expected[i], change / (one - x[i]).norm())
    assert len(shown) == 3 + 3 * 30
    torch.testing.assert_close(score, expected, rtol=1e-12, atol=0)


def test_the_noise_is_normal_with_its_standard_deviation_and_the_same_for_all() -> None:
    watched, x = Watched(), noise(2, 3, 20, 20)
    stability(watched, x, samples=40, noise=0.25)
    drawn = (torch.cat(watched.seen[1:]).view(40, 2, 3, 20, 20) - x) / 0.25
    torch.testing.assert_close(drawn[:, 0], drawn[:, 1], rtol=0, atol=1e-12)
    values = drawn[:, 0].flatten()
    assert float(values.mean()) == pytest.approx(0, abs=6 / len(values) ** 0.5)
    assert float(values.std()) == pytest.approx(1, abs=6 / (2 * len(values)) ** 0.5)
    assert len({float(one[0, 0, 0]) for one in drawn[:, 0]}) == 40


def test_the_scale_of_the_maps_does_not_matter_but_their_offset_does() -> None:
    watched, x = Watched(), noise(3, 3, 6, 6)
    expected = stability(watched, x, samples=20)
    torch.testing.assert_close(stability(lambda x: 1000 * watched(x), x, samples=20), expected, rtol=1e-12, atol=0)
    assert (stability(lambda x: 1000 + watched(x), x, samples=20) < 0.1 * expected).all()


def test_an_explainer_that_ignores_the_picture_is_perfectly_stable() -> None:
    x = noise(2, 3, 6, 6)
    for constant in (torch.zeros(6, 6), torch.full((6, 6), 0.1), noise(2, 3, seed=1)):
        assert stability(lambda x, c=constant: c.expand(len(x), -1, -1), x, samples=5).tolist() == [0, 0]


def test_more_copies_never_look_more_stable() -> None:
    watched, x = Watched(), noise(3, 3, 6, 6)
    few, many = (stability(watched, x, samples=n) for n in (10, 40))
    assert (few <= many).all()
    assert (few < many).any()


def test_a_coarse_map_is_enlarged_before_it_is_scaled() -> None:
    x = noise(2, 3, 8, 8)

    def coarse(x: Tensor) -> Tensor:
        return x.mean(1).unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4))

    def fine(x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(coarse(x)[:, None], size=(8, 8), mode="bilinear")[:, 0]

    assert torch.equal(stability(coarse, x, samples=10), stability(fine, x, samples=10))


@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_batch_mates_do_not_matter(batch: int) -> None:
    x = noise(4, 3, 5, 9)
    together = stability(Watched(), x, samples=12, batch=batch)
    alone = torch.cat([stability(Watched(), x[i : i + 1], samples=12) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_explain_gets_at_most_so_many_pictures_at_once() -> None:
    watched = Watched()
    stability(watched, noise(7, 3, 4, 4), samples=5, batch=6)
    assert max(len(seen) for seen in watched.seen) == 6
    assert sum(len(seen) for seen in watched.seen) == 7 * 6


def test_a_broken_map_has_no_score_and_spoils_no_other() -> None:
    x = noise(2, 3, 4, 4)
    x[0, 1, 0, 0] = 100

    def explain(x: Tensor) -> Tensor:
        map = Watched()(x)
        return map.where(x[:, 1] < 100.05, torch.nan)

    score = stability(explain, x, samples=30, batch=8)
    assert score.isnan().tolist() == [True, False]
    torch.testing.assert_close(score[1:], stability(explain, x[1:], samples=30), rtol=1e-12, atol=0)


@pytest.mark.parametrize("options", [{"samples": 0}, {"noise": 0.0}, {"noise": -0.1}, {"batch": 0}])
def test_numbers_must_be_positive(options: dict[str, float]) -> None:
    with pytest.raises(IerfError, match="must all be positive"):
        stability(Watched(), noise(1, 3, 4, 4), **options)  # type: ignore[arg-type]


def test_one_map_per_picture() -> None:
    with pytest.raises(IerfError, match="1 maps for 2 pictures"):
        stability(lambda x: x[:1, 0], noise(2, 3, 4, 4))
    with pytest.raises(IerfError, match="maps are a tensor"):
        stability(lambda x: x, noise(2, 3, 4, 4))
    with pytest.raises(IerfError, match="expected a float tensor of pixels"):
        stability(Watched(), noise(3, 4, 4))
