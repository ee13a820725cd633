"""iERFs of several layers at once equal those of each layer on its own."""

import pytest
import torch
from torch import Tensor, nn

import ierf
from ierf.attribution import stencils
from ierf.attribution.attribute import relevance_pass
from ierf.attribution.receptive_fields import joint_fields

LAYERS = ("layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1")


def hot(run, node: int, draws: Tensor) -> Tensor:
    entry = run.tape.nodes[node]
    index = draws % entry.positions
    flat = torch.zeros(*index.shape, entry.positions, dtype=torch.float64).scatter_(2, index[..., None], 1)
    return flat.view(*index.shape, *entry.map_shape)


@pytest.mark.parametrize(
    ("layers", "draws_of_each", "stencils_read"), [(LAYERS, 2, 1), (LAYERS[:3], 20, 4), (LAYERS[-1:], 1, 0)]
)
@pytest.mark.parametrize("bias", ["norm", "drop"])
def test_each_equals_its_own_backward_pass(
    layers: tuple[str, ...], draws_of_each: int, stencils_read: int, bias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ierf.VisionModel(ierf.load("bundled:resnet18-tiny").net.double())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 64, 56, generator=generator, dtype=torch.float64)
    read = []
    plain = stencils.stencil
    monkeypatch.setattr("ierf.attribution.receptive_fields.stencil", lambda run, s: read.append(s) or plain(run, s))
    with relevance_pass(model, x, "srd", {"bias": bias}) as run:
        nodes = [run.layer(name) for name in layers]
        draws = torch.randint(10_000, (2, draws_of_each, len(layers)), generator=generator)
        starts = {node: hot(run, node, draws[..., i]) for i, node in enumerate(nodes)}
        found = joint_fields(run, starts)
        for node, maps in starts.items():
            alone = [run.carry(node, run.cotangent(node, one), [0])[0] for one in maps.unbind(1)]
            torch.testing.assert_close(found[node], torch.stack(alone, 1), rtol=0, atol=1e-12)
    assert len(read) == stencils_read


def test_where_windows_are_unknown_every_layer_goes_alone() -> None:
    class Rolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.first = self.a(x.roll(1, 2)).relu()
            return self.head(self.b(self.first).relu().mean((2, 3)))

    torch.manual_seed(0)
    x = torch.randn(1, 3, 9, 9)
    with relevance_pass(ierf.VisionModel(Rolled().eval()), x, "srd", {}) as run:
        nodes = [k for k, node in enumerate(run.tape.nodes) if node.operation == "relu"]
        starts = {k: hot(run, k, torch.tensor([[7]])).float() for k in nodes}
        found = joint_fields(run, starts)
        for node, maps in starts.items():
            assert torch.equal(found[node][:, 0], run.carry(node, run.cotangent(node, maps[:, 0]), [0])[0])
