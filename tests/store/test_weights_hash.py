"""The hash of a network's weights is computed once, and again when they change, however they do."""

import pytest
import torch
from torch import nn

from ierf.store import layout
from ierf.store.layout import weights_hash


def test_it_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = nn.Linear(3, 2), []
    whole = layout._hashed
    monkeypatch.setattr(layout, "_hashed", lambda net: seen.append(net) or whole(net))
    assert weights_hash(net) == weights_hash(net) == whole(net)
    assert len(seen) == 1


def test_it_follows_every_change() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    found = [weights_hash(net)]
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    found.append(weights_hash(net))
    net[0].weight.data[1, 2] = 7  # behind autograd's back: no new version
    found.append(weights_hash(net))
    net[0].weight.data = net[0].weight.data.flip(1)
    found.append(weights_hash(net))
    net.train()(torch.randn(4, 3))
    found.append(weights_hash(net))
    net.load_state_dict({name: tensor + 1 for name, tensor in net.state_dict().items()})
    found.append(weights_hash(net))
    assert len(set(found)) == len(found)
    for tensor in net.parameters():
        tensor.data.fill_(torch.nan)
    assert weights_hash(net) == weights_hash(net) != found[-1]
