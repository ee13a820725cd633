"""Checkpoints, curves of latents and copies of networks on a device that refuses to mix with the CPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ierf.experiments.networks import copied


@pytest.mark.shared_data
def test_on_a_device_that_refuses_to_mix_with_the_cpu(shared: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if not shutil.which("g++") or not shutil.which("ninja", path=path) or not (shared / "tools").is_dir():
        pytest.skip("needs the second device, a C++ compiler and ninja")
    tests = Path(__file__).parents[1]
    rooms = [shared / "tools" / "second_device", tests]
    known = [*map(str, rooms), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("on_second_device.py")), str(tmp_path)],
        env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(known)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["checkpoints", "curves", "sanity", "fits", "costs"]


def test_a_copy_needs_no_copies_of_storages_and_keeps_those_that_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = nn.BatchNorm2d(4), nn.Linear(4, 2)
            self.again = self.out

    net = Net()
    with monkeypatch.context() as patch:
        patch.setattr(torch.UntypedStorage, "__deepcopy__", lambda *_: pytest.fail("copies a storage"))
        copy = copied(net)
    assert isinstance(copy, Net)
    assert copy.again is copy.out
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for value in copy.state_dict().values():
        value.add_(1)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.register_buffer("view", net.norm.running_mean[1:])
    copy = copied(net)
    copy.norm.running_mean.fill_(7)
    assert copy.view.tolist() == [7, 7, 7]
    assert net.view.tolist() == [0, 0, 0]
