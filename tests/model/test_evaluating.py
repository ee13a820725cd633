import pytest
from torch import nn

from ierf.model import evaluating


def _flags(net: nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


def _mixed() -> nn.Module:
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()))
    net[1][0].eval()
    return net


def test_every_flag_comes_back() -> None:
    net = _mixed()
    before = _flags(net)
    with evaluating(net):
        assert not any(_flags(net))
    assert _flags(net) == before == [True, True, True, False, True]


def test_every_flag_comes_back_after_an_exception() -> None:
    net = _mixed()
    before = _flags(net)
    with pytest.raises(ZeroDivisionError), evaluating(net):
        raise ZeroDivisionError
    assert _flags(net) == before
