"""What the cost command for transformers measures, without a look at the clock."""

import pytest

import ierf
from ierf.experiments import attnlrp_costs


def test_every_cost_names_what_was_measured_against_what() -> None:
    timm = pytest.importorskip("timm")
    model = ierf.VisionModel(timm.create_model("test_vit"), ierf.model.Preprocess((160, 160)))
    costs = {cost.what: cost for cost in attnlrp_costs(model, "blocks.1", batches=(2,), rounds=1, tokens=3)}
    assert {"AttnLRP, batch 2", "CP-LRP, batch 2", "AttnLRP, γ 0.25 and 0.05, batch 2"} <= costs.keys()
    assert costs["iERFs of 3 tokens of blocks.1"].peer == "3 forwards + gradients"
    assert all(0 < cost.lowest <= cost.ratio <= cost.highest for cost in costs.values())
