"""A bank of concepts by hand, whose pictures are plain colours."""

import pytest
import torch
from PIL import Image

from ierf.concepts import ClassShares, ConceptBank, ConceptTree, LayerConcepts
from ierf.concepts.bank_files import BankPlan, StoreRecord


def layer(name: str) -> LayerConcepts:
    """Six concepts of three channels."""
    torch.manual_seed(0)
    return LayerConcepts(
        name=name,
        atoms=torch.randn(6, 3),
        shift=torch.zeros(3),
        shift_from="zero",
        lam=0.25,
        positive=False,
        values="pre-activation",
        map=(4, 4),
        prefix_tokens=None,
        extractor={"name": "bisecting"},
        rows=90,
        encoded=80,
        l0_ratio=0.75,
        relative_error=0.5,
        frequencies=torch.tensor([0.1, 0.5, 0.3, 0.2, 0.4, 0.0]),
        strengths=torch.full((6,), 0.7),
        relevances=torch.tensor([0.5, 0.1, 0.1, 0.1, 0.15, 0.05]),
        exemplars=torch.arange(18).view(6, 3),
        cosines=torch.linspace(0.9, 0.5, 18).view(6, 3),
        class_shares=ClassShares(
            torch.tensor([0, 2, 2, 2, 2, 3, 3]), torch.tensor([1, 0, 9]), torch.tensor([0.75, 0.25, 1.0])
        ),
        tree=ConceptTree(torch.tensor([-1, 0, 0]), torch.ones(3).long(), torch.tensor([1, 2, 1, 1, 1, 1])),
    )


def bank(monkeypatch: pytest.MonkeyPatch) -> ConceptBank:
    """Two layers."""
    store = StoreRecord(None, 45, "", "srd", {}, {})
    plan = BankPlan(
        {"name": "a <model>"}, ("bee & wasp", "cup"), store, "bisecting", {}, 6, 0, 0.75, False, None, {}, ("a.0", "b")
    )

    def plain(self: ConceptBank, layer: str, concepts: list[int], n: int, model: None) -> list[list[Image.Image]]:
        return [[Image.new("RGB", (8, 8), (40 * concept, 80 * i, 9)) for i in range(3)] for concept in concepts]

    monkeypatch.setattr(ConceptBank, "pictures", plain)
    return ConceptBank(plan, {"a.0": layer("a.0"), "b": layer("b")})
