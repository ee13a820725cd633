"""Insertion and deletion, against sums by hand, closed forms and loops that paint one patch after the other."""

import pytest
import torch
from support.networks import Small, Weighted, noise, uniform
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.metrics import Curve, deletion, insertion


def painted(model: torch.nn.Module, x: Tensor, target: int, map: Tensor, patch: int, start: Tensor) -> list[float]:
    """The insertion curve of one picture, patch by patch."""
    corners = [(r, c) for r in range(0, x.shape[1], patch) for c in range(0, x.shape[2], patch)]
    corners.sort(key=lambda at: -float(map[at[0] : at[0] + patch, at[1] : at[1] + patch].sum()))
    canvas, shown = start.clone(), [start]
    for r, c in corners:
        canvas[:, r : r + patch, c : c + patch] = x[:, r : r + patch, c : c + patch]
        shown.append(canvas.clone())
    with torch.no_grad():
        return [float(model(picture[None])[0, target]) for picture in shown]


def test_a_sum_of_four_pixels_by_hand() -> None:
    x = torch.tensor([[[[1.0, 4.0], [2.0, 3.0]]]], dtype=torch.float64)
    model = Weighted(torch.ones(1, 2, 2))
    up = insertion(model, x, 0, x[:, 0], patch=1)
    assert up.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert up.scores.tolist() == [[0, 4, 7, 9, 10]]
    assert up.auc.tolist() == [(0 / 2 + 4 + 7 + 9 + 10 / 2) / 4]
    down = deletion(model, x, 0, x[:, 0], patch=1)
    assert down.scores.tolist() == [[10, 6, 3, 1, 0]]
    assert down.auc.tolist() == [(10 / 2 + 6 + 3 + 1 + 0 / 2) / 4]
    for curve in (up, down):
        assert (curve.baseline.item(), curve.full.item()) == (0, 10)


def test_the_insertion_area_of_a_linear_model_in_closed_form() -> None:
    weight, x = uniform(3, 6, 4), uniform(3, 3, 6, 4, seed=1)
    worth = (weight * x).sum(1)
    sorted_worth = worth.flatten(1).sort(1, descending=True).values
    m = sorted_worth.shape[1]
    # The pixel of rank k is there for the last m − k steps, and for half of the step in which it comes.
    share = (m - torch.arange(m, dtype=torch.float64) - 0.5) / m
    expected = (sorted_worth * share).sum(1)
    auc = insertion(Weighted(weight), x, 0, worth, patch=1).auc
    torch.testing.assert_close(auc, expected, rtol=1e-12, atol=0)
    assert (insertion(Weighted(weight), x, 0, -worth, patch=1).auc < auc).all()


def test_insertion_and_deletion_of_a_linear_model_sum_to_both_ends() -> None:
    model, x, map = Weighted(noise(3, 7, 5), bias=2.0), noise(4, 3, 7, 5, seed=1), noise(4, 7, 5, seed=2)
    up, down = (metric(model, x, 0, map, patch=2, baseline=0.3) for metric in (insertion, deletion))
    torch.testing.assert_close(up.auc + down.auc, up.full + up.baseline, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(12, 12), (7, 11), (11, 4)])
@pytest.mark.parametrize("patch", [1, 3, 50])
def test_it_is_what_a_loop_paints(size: tuple[int, int], patch: int) -> None:
    model = Small().eval()
    x, map, start = noise(3, 3, *size), noise(3, *size, seed=1), noise(3, 3, *size, seed=2)
    targets = [4, 0, 2]
    up = insertion(model, x, targets, map, patch=patch, baseline=start, batch=7)
    down = deletion(model, start, targets, map, patch=patch, baseline=x, batch=7)
    loop = [painted(model, *row, patch, s) for *row, s in zip(x, targets, map, start, strict=True)]  # type: ignore[arg-type]
    torch.testing.assert_close(up.scores, torch.tensor(loop, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(down.scores, up.scores, rtol=1e-12, atol=1e-12)


def test_the_default_patch_is_a_14th_of_the_longer_side() -> None:
    x = uniform(1, 3, 28, 56)
    assert insertion(Weighted(noise(3, 28, 56)), x, 0, x[:, 0]).scores.shape == (1, 1 + 7 * 14)


def test_steps_thin_the_curve_out_without_changing_its_points() -> None:
    model, x, map = Small(), noise(2, 3, 10, 10), noise(2, 10, 10, seed=1)
    fine = insertion(model, x, 1, map, patch=2)
    coarse = insertion(model, x, 1, map, patch=2, steps=4)
    kept = [0, 6, 12, 19, 25]
    torch.testing.assert_close(coarse.fractions, fine.fractions[kept])
    torch.testing.assert_close(coarse.scores, fine.scores[:, kept], rtol=1e-12, atol=1e-12)
    assert len(insertion(model, x, 1, map, patch=2, steps=1000).fractions) == 26


def test_equal_patches_go_row_by_row() -> None:
    model, x = Weighted(torch.ones(1, 4, 6)), torch.ones(1, 1, 4, 6, dtype=torch.float64)
    insertion(model, x, 0, torch.full((1, 4, 6), 0.1), patch=2)
    first_seen = torch.cat(model.seen).sum(0)[0]
    assert first_seen[::2, ::2].tolist() == [[6, 5, 4], [3, 2, 1]]


def test_small_relevance_beside_large_counts() -> None:
    x = torch.tensor([1.0, 1, 1, 0, 5, 0]).view(1, 1, 1, 6).double()
    map = torch.tensor([[[1e8, 1.0, -1e8, 0.0, 0.5, 0.0]]])
    # The first patch has the sum 1, the second ½; their own pixels sum to 3 and 5.
    assert insertion(Weighted(torch.ones(1, 1, 6)), x, 0, map, patch=3).scores.tolist() == [[0, 3, 8]]


def test_a_coarse_map_is_enlarged() -> None:
    model, x = Weighted(noise(3, 8, 8)), noise(2, 3, 8, 8, seed=1)
    coarse = noise(2, 2, 2, seed=2)
    fine = torch.nn.functional.interpolate(coarse[:, None], scale_factor=4, mode="bilinear")[:, 0]
    for metric in (insertion, deletion):
        assert torch.equal(metric(model, x, 0, coarse, patch=1).scores, metric(model, x, 0, fine, patch=1).scores)


def test_probabilities() -> None:
    model, x, map = Small().eval(), noise(2, 3, 8, 8), noise(2, 8, 8, seed=1)
    curve = insertion(model, x, 3, map, patch=4, score="probability")
    torch.testing.assert_close(curve.full, model(x).softmax(1)[:, 3].detach(), rtol=1e-12, atol=0)
    with pytest.raises(UnknownNameError, match="did you mean probability"):
        insertion(model, x, 3, map, score="probabilty")  # type: ignore[arg-type]


def test_no_target_is_the_class_of_the_whole_picture() -> None:
    model, x, map = Weighted(noise(3, 8, 8, seed=2)), noise(6, 3, 8, 8), noise(6, 8, 8, seed=1)
    predicted = model(x).argmax(1)
    assert len(predicted.unique()) > 1
    for target in (predicted, predicted.tolist()):
        expected = deletion(model, x, target, map, patch=4).scores
        assert torch.equal(deletion(model, x, None, map, patch=4).scores, expected)


def test_normalised_curves_run_from_the_baseline_to_the_picture() -> None:
    x = torch.tensor([[[[1.0, 4.0], [2.0, 3.0]]]], dtype=torch.float64)
    model = Weighted(torch.ones(1, 2, 2), bias=5.0)
    up, down = (metric(model, x, 0, x[:, 0], patch=1).normalised for metric in (insertion, deletion))
    torch.testing.assert_close(up.scores, torch.tensor([[0, 0.4, 0.7, 0.9, 1]], dtype=torch.float64))
    torch.testing.assert_close(down.scores, torch.tensor([[1, 0.6, 0.3, 0.1, 0]], dtype=torch.float64))
    assert (up.baseline.item(), up.full.item()) == (0, 1)
    # The logit of class 1 falls as the picture appears; divided by its own fall, the curve is the same.
    torch.testing.assert_close(insertion(model, x, 1, x[:, 0], patch=1).normalised.scores, up.scores)


def test_nothing_to_normalise_by_is_nan() -> None:
    x = noise(2, 3, 4, 4)
    flat = insertion(Weighted(noise(3, 4, 4)), x, 2, x[:, 0], patch=2)
    assert flat.auc.tolist() == [0, 0]
    assert flat.normalised.scores.isnan().all()
    assert flat.normalised.full.isnan().all()


def test_a_broken_map_has_no_curve_and_spoils_no_other() -> None:
    model, x, map = Small(), noise(2, 3, 4, 4), noise(2, 4, 4, seed=1)
    expected = insertion(model, x, 0, map, patch=2).auc
    map[0, 1, 1] = torch.nan
    auc = insertion(model, x, 0, map, patch=2).auc
    assert auc[0].isnan()
    torch.testing.assert_close(auc[1], expected[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_batch_mates_do_not_matter(batch: int) -> None:
    model, x, map = Small(), noise(4, 3, 9, 6), noise(4, 3, 2, seed=1)
    for metric in (insertion, deletion):
        together = metric(model, x, None, map, batch=batch)
        for i in range(4):
            alone = metric(model, x[i : i + 1], None, map[i : i + 1])
            torch.testing.assert_close(together.scores[i], alone.scores[0], rtol=1e-12, atol=1e-12)


def test_the_model_is_asked_in_eval_mode_and_comes_back_as_it_was() -> None:
    model = Small().train()
    model.conv.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = noise(2, 3, 4, 4).requires_grad_()
    curve = insertion(model, x, 0, noise(2, 4, 4), patch=2)
    assert (model.training, model.norm.training, model.conv.training) == (True, True, False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert x.grad is None
    assert not curve.scores.requires_grad
    torch.testing.assert_close(curve.full, model.eval()(x).detach()[:, 0], rtol=1e-12, atol=0)


def test_at_most_so_many_pictures_at_once() -> None:
    model, x = Weighted(noise(3, 4, 4)), noise(3, 3, 4, 4)
    insertion(model, x, None, x[:, 0], patch=1, batch=5)
    assert max(len(seen) for seen in model.seen) == 5
    assert sum(len(seen) for seen in model.seen) == 3 + 3 * 17


def test_a_picture_of_one_pixel() -> None:
    curve = insertion(
        Weighted(torch.ones(3, 1, 1)), torch.ones(1, 3, 1, 1, dtype=torch.float64), 0, torch.ones(1, 1, 1)
    )
    assert curve.scores.tolist() == [[0, 3]]
    assert curve.auc.tolist() == [1.5]


def test_float32_and_half_precision_give_float32() -> None:
    x, map = noise(1, 3, 4, 4), noise(1, 4, 4, seed=1)
    exact = insertion(Small(), x, 0, map, patch=2).scores
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        curve = insertion(Small().to(dtype), x.float(), 0, map, patch=2)
        assert curve.scores.dtype == curve.auc.dtype == torch.float32
        torch.testing.assert_close(curve.scores.double(), exact, rtol=tolerance, atol=tolerance)


def test_the_area_knows_uneven_steps() -> None:
    fractions = torch.tensor([0, 0.5, 0.75, 1.0])
    curve = Curve(fractions, fractions[None] ** 2, torch.zeros(1), torch.ones(1))
    assert curve.auc.item() == pytest.approx(0.25 / 4 + (0.25 + 0.5625) / 8 + (0.5625 + 1) / 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "at least one pixel wide, not 0"),
        ({"steps": 0}, "at least one step, not 0"),
        ({"batch": 0}, "batch is at least 1"),
        ({"baseline": torch.zeros(3, 5, 5)}, "a baseline is one number or pixels"),
        ({"target": 3}, "there is no class 3: the model has 3 classes"),
        ({"target": -1}, "counted from 0"),
        ({"target": [0, 1, 2]}, "3 targets for 2 pictures"),
        ({"target": 0.5}, "a target is a class index"),
        ({"map": torch.zeros(3, 4, 4)}, "3 maps for 2 pictures"),
        ({"map": torch.zeros(2, 1, 4, 4)}, "maps are a tensor"),
        ({"x": torch.zeros(3, 4, 4)}, "expected a float tensor of pixels"),
        ({"x": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, "torch.uint8"),
    ],
)
def test_what_does_not_fit_is_said(options: dict[str, object], message: str) -> None:
    arguments = {"model": Weighted(noise(3, 4, 4)), "x": noise(2, 3, 4, 4), "target": 0, "map": torch.zeros(2, 4, 4)}
    with pytest.raises(IerfError, match=message):
        insertion(**(arguments | options))  # type: ignore[arg-type]


def test_a_network_without_logits_is_refused() -> None:
    with pytest.raises(IerfError, match=r"returns \(.*, 3, 4, 4\), where logits"):
        insertion(torch.nn.Identity(), noise(1, 3, 4, 4), 0, torch.zeros(1, 4, 4))
