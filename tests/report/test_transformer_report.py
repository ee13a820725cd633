"""What a report says of a transformer: AttnLRP's maps, and tokens instead of positions."""

from pathlib import Path

import pytest
import torch

import ierf
from ierf.report.text import method_sentence


@pytest.fixture(scope="module")
def vit() -> ierf.VisionModel:
    return ierf.load("bundled:vit-tiny")


@pytest.fixture(scope="module")
def explained(vit: ierf.VisionModel, cat: Path) -> ierf.Explanation:
    return ierf.explain(vit, cat, n_classes=2)


def test_maps_are_those_of_attribute(vit: ierf.VisionModel, cat: Path, explained: ierf.Explanation) -> None:
    """`low` and `high` are one map here, shown once: the patches are an eighth of the side."""
    x = vit.prepare(cat)
    assert explained.method == "attnlrp"
    assert len(explained.maps) == 2
    for index, maps in explained.maps.items():
        assert list(maps) == ["low", "input"]
        for resolution, values in maps.items():
            expected = ierf.attribute(vit, x, index, "attnlrp", resolution)[0]
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_features_are_tokens_of_blocks(vit: ierf.VisionModel, cat: Path, explained: ierf.Explanation) -> None:
    x = vit.prepare(cat)
    assert len({field.layer for field in explained.fields}) == 3
    for field in explained.fields:
        assert field.map_shape == (65,)
        expected = ierf.effective_receptive_fields(vit, x, field.layer, [field.position])[0, 0]
        torch.testing.assert_close(field.ierf, expected, rtol=1e-3, atol=1e-6)


def test_tokens_are_called_by_what_they_are(explained: ierf.Explanation, tmp_path: Path) -> None:
    page = explained.save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<strong>Token 0</strong>" in page
    assert "65 tokens" in page
    patch = next(field for field in explained.fields if field.position[0] > 0)
    row, column = divmod(patch.position[0] - 1, 8)
    assert f"Patch ({row}, {column}), token {patch.position[0]}" in page


def test_the_account_starts_at_the_logit(vit: ierf.VisionModel, cat: Path, explained: ierf.Explanation) -> None:
    with torch.no_grad():
        logits = vit(vit.prepare(cat))[0]
    assert explained.ledger is not None
    assert explained.ledger.relevance_in == pytest.approx(float(logits.max()), rel=1e-5)
    assert any(leak.operation == "scaled_dot_product_attention" for e in explained.ledger.entries for leak in e.leaks)


def test_other_methods_that_carry_relevance_have_reports(vit: ierf.VisionModel, cat: Path) -> None:
    explained = ierf.explain(vit, cat, n_classes=1, method="cp_lrp", linear_gamma=0.1)
    assert method_sentence(explained) == "CP-LRP, linear_gamma = 0.1"
    (maps,) = explained.maps.values()
    expected = ierf.attribute(vit, vit.prepare(cat), explained.top[0].class_index, "cp_lrp", linear_gamma=0.1)
    torch.testing.assert_close(maps["input"], expected[0], rtol=1e-4, atol=1e-5)


def test_a_patch_can_be_asked_for_by_row_and_column(vit: ierf.VisionModel, cat: Path) -> None:
    asked = ierf.targets.PFV("blocks.3", (2, 5))
    (field,) = ierf.explain(vit, cat, n_classes=1, pfvs=[asked]).fields
    assert field.position == (1 + 2 * 8 + 5,)
