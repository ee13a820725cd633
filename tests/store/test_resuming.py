"""A store is the same bytes however often its writer was killed, and whoever shared the work."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.networks import SmallNet

import ierf
from ierf.errors import IerfError
from ierf.store import PFVStore, Settings, Shard, collect, problems
from ierf.store import files as store_files
from ierf.store.files import write, writing

Photos = Callable[..., Path]

LAYERS = ["act1", "act2"]
SETTINGS = Settings(block=4, batch=2)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class PowerCut(BaseException):
    """Ends a run anywhere, and no handler for errors expects it."""


def cut_after(monkeypatch: pytest.MonkeyPatch, writes: int, error: BaseException) -> None:
    """The write of that number leaves half a file behind and raises."""
    left = iter(range(writes))

    def replace(part: Any, path: Any) -> None:
        if next(left, None) is None:
            content = Path(part).read_bytes()
            Path(part).write_bytes(content[: len(content) // 2])
            raise error
        os.rename(part, path)

    monkeypatch.setattr(store_files.os, "replace", replace)


def test_any_write_may_be_the_last(
    model: ierf.VisionModel, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(9, bad=(5,))
    collect(model, folder, LAYERS, tmp_path / "whole", SETTINGS)
    expected = contents(tmp_path / "whole")
    cuts = 0
    for writes in range(0, len(expected) - 1, 5):
        with monkeypatch.context() as patch:
            cut_after(patch, writes, PowerCut())
            with pytest.raises(PowerCut):
                collect(model, folder, LAYERS, tmp_path / f"{writes}", SETTINGS)
        with pytest.raises(IerfError, match=r"not complete|no PFV–iERF store"):
            PFVStore(tmp_path / f"{writes}")
        done = collect(model, folder, LAYERS, tmp_path / f"{writes}", SETTINGS)
        assert contents(tmp_path / f"{writes}") == expected, writes
        cuts += done.images < 8
    assert cuts > 2
    assert not list(problems(tmp_path / "whole"))


def test_killed_processes_leave_no_trace(model: ierf.VisionModel, tmp_path: Path, photos: Photos) -> None:
    """SIGKILL and SIGINT at random moments, until the store is complete."""
    folder, settings = photos(40, bad=(7,)), Settings(block=2, batch=2)
    collect(model, folder, LAYERS, tmp_path / "whole", settings)
    markers, random = tmp_path / "killed" / "collection" / "blocks", Random(4)
    unfinished = 0
    for attempt in range(8):
        before = len(list(markers.glob("*.json")))
        process = get_context("fork").Process(
            target=collect, args=(model, folder, LAYERS, tmp_path / "killed", settings)
        )
        process.start()
        while len(list(markers.glob("*.json"))) <= before and process.is_alive():
            time.sleep(0.001)
        time.sleep(random.random() * 0.1)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGINT if attempt == 2 else signal.SIGKILL)
        process.join()
        unfinished += len(list(markers.glob("*.json"))) < 20
    collect(model, folder, LAYERS, tmp_path / "killed", settings)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert unfinished >= 2


def test_a_finished_store_is_left_alone(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(5)
    PFVStore.collect(model, folder, LAYERS, tmp_path / "s")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s" / "layers").rglob("*")}
    assert collect(model, folder, LAYERS, tmp_path / "s").images == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s" / "layers").rglob("*")} == before


@pytest.mark.parametrize("count", [2, 3])
def test_shards_make_the_store_of_one_process(
    model: ierf.VisionModel, photos: Photos, tmp_path: Path, count: int
) -> None:
    folder = photos(18, bad=(3,))
    collect(model, folder, LAYERS, tmp_path / "one", SETTINGS)
    lacking = [
        collect(model, folder, LAYERS, tmp_path / "many", SETTINGS, shard=Shard(i, count)).missing
        for i in reversed(range(count))
    ]
    assert lacking[-1] == 0
    assert all(lacking[:-1])
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


RANK = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import ierf
from ierf.model import Preprocess
from ierf.store import PFVStore
from support.networks import SIZE, SmallNet

torch.distributed.init_process_group("gloo")
model = ierf.VisionModel(SmallNet().eval(), Preprocess(SIZE, None), name="small")
store = PFVStore.collect(model, {photos!r}, ["act1", "act2"], {out!r}, block=4, batch=2)
assert len(store.layer("act2")) == 10
torch.distributed.destroy_process_group()
"""


def test_two_ranks_with_gloo(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder, root = photos(11, bad=(3,)), str(Path(__file__).resolve().parents[1])
    collect(model, folder, LAYERS, tmp_path / "one", SETTINGS)
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(tests=root, photos=str(folder), out=str(tmp_path / "two")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    run = subprocess.run(torchrun, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_rank_and_world_size_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shard.of_this_process() == Shard(0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert Shard.of_this_process() == Shard.parse("2/5")
    for text in ("5/5", "1", "a/b", "-1/2"):
        with pytest.raises(IerfError, match="0/4"):
            Shard.parse(text)


def test_a_second_writer_is_refused(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(4)
    collect(model, folder, LAYERS, tmp_path / "s", SETTINGS)
    with writing(tmp_path / "s", Shard()):
        for shard in (Shard(), Shard(1, 2)):
            with pytest.raises(IerfError, match=f"another process .*process {os.getpid()}"):
                collect(model, folder, LAYERS, tmp_path / "s", SETTINGS, shard=shard)
    with writing(tmp_path / "s", Shard(0, 2)), writing(tmp_path / "s", Shard(1, 2)):
        pass
    collect(model, folder, LAYERS, tmp_path / "s", SETTINGS)


def test_a_dead_writers_lock_is_taken_over_on_its_host(tmp_path: Path) -> None:
    import socket

    (tmp_path / "collection").mkdir()
    lock = tmp_path / "collection" / "writer-0-of-1"
    for owner in ("", json.dumps({"host": socket.gethostname(), "process": 2**30})):
        lock.write_text(owner)
        with writing(tmp_path, Shard()):
            assert json.loads(lock.read_text())["process"] == os.getpid()
        assert not lock.exists()
    lock.write_text(json.dumps({"host": "elsewhere", "process": 1}))
    with pytest.raises(IerfError, match=r"process 1 on elsewhere.*delete"), writing(tmp_path, Shard()):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_one_sentence(
    model: ierf.VisionModel, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = photos(6)
    collect(model, folder, LAYERS, tmp_path / "whole", SETTINGS)
    with monkeypatch.context() as patch:
        cut_after(patch, 26, OSError(code, os.strerror(code)))
        with pytest.raises(IerfError, match=f"cannot write .*{os.strerror(code)}.*goes on from there"):
            collect(model, folder, LAYERS, tmp_path / "s", SETTINGS)
    collect(model, folder, LAYERS, tmp_path / "s", SETTINGS)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_a_full_device(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="cannot write '/dev/full"):
        write(Path("/dev/full/x"), b"content")


def test_folders_with_other_things_are_refused(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(2)
    with pytest.raises(IerfError, match="not empty"):
        collect(model, folder, LAYERS, folder)
    assert len(list(folder.iterdir())) == 2
    (tmp_path / "file").touch()
    with pytest.raises(IerfError, match="cannot write"):
        collect(model, folder, LAYERS, tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": Settings(block=4, batch=2, seed=1)}, "sampling.seed is 0 there, 1 here"),
        ({"settings": Settings(block=4, batch=3)}, "batch is 2 there, 3 here"),
        ({"layers": ["act2"]}, "layers is"),
        ({"limit": 3}, "images.count is 5 there, 3 here"),
    ],
)
def test_another_plan_is_named(
    model: ierf.VisionModel, photos: Photos, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    arguments = {"model": model, "images": photos(5), "layers": LAYERS, "path": tmp_path / "s", "settings": SETTINGS}
    collect(**arguments)
    before = contents(tmp_path / "s")
    with pytest.raises(IerfError, match=message):
        collect(**{**arguments, **change})
    assert contents(tmp_path / "s") == before


def test_another_model_is_named(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(3)
    PFVStore.collect(model, folder, LAYERS, tmp_path / "s")
    PFVStore(tmp_path / "s", model)
    other = ierf.VisionModel(SmallNet().eval(), model.preprocess, name="small")
    PFVStore(tmp_path / "s", other)
    with torch.no_grad():
        other.net.get_parameter("head.bias")[2] += 1e-6
    for attempt in (lambda: PFVStore(tmp_path / "s", other), lambda: collect(other, folder, LAYERS, tmp_path / "s")):
        with pytest.raises(IerfError, match=r"model\.weights is"):
            attempt()


def test_changed_photographs_are_noticed(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(3)
    collect(model, folder, LAYERS, tmp_path / "s")
    Image.new("RGB", (90, 90), "red").save(folder / "001.png")
    with pytest.raises(IerfError, match=r"images\.fingerprint"):
        collect(model, folder, LAYERS, tmp_path / "s")


def test_appending(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    first, second = photos(6, "first"), photos(5, "second", bad=(1,))
    collect(model, first, LAYERS, tmp_path / "s", SETTINGS)
    before = PFVStore(tmp_path / "s").layer("act2").pfvs[:]
    collect(model, second, LAYERS, tmp_path / "s", SETTINGS, append=True)
    store = PFVStore(tmp_path / "s")
    alone = PFVStore.collect(model, second, LAYERS, tmp_path / "alone", block=4, batch=2)
    for name in LAYERS:
        layer = store.layer(name)
        assert len(layer) == len(store) == 10
        np.testing.assert_array_equal(layer.pfvs[6:], alone.layer(name).pfvs[:])
        np.testing.assert_array_equal(layer.ierfs[6:], alone.layer(name).ierfs[:])
    np.testing.assert_array_equal(store.layer("act2").pfvs[:6], before)
    assert [store.layer("act2").exemplar(row).name for row in (5, 6, 7)] == ["005.png", "000.png", "002.png"]
    assert store.photo(int(store.layer("act2").images[7])).size == (40, 32)
    assert [name for name, _ in store.skipped] == ["001.png"]
    assert not list(problems(tmp_path / "s"))
    before_again = contents(tmp_path / "s")
    collect(model, second, LAYERS, tmp_path / "s", SETTINGS, append=True)
    assert contents(tmp_path / "s") == before_again


def test_an_append_that_was_cut(
    model: ierf.VisionModel, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = photos(6, "first"), photos(5, "second")
    for name in ("whole", "cut"):
        collect(model, first, LAYERS, tmp_path / name, SETTINGS)
    collect(model, second, LAYERS, tmp_path / "whole", SETTINGS, append=True)
    for writes in (3, 18, 19, 30):
        with monkeypatch.context() as patch:
            cut_after(patch, writes, PowerCut())
            with pytest.raises(PowerCut):
                collect(model, second, LAYERS, tmp_path / "cut", SETTINGS, append=True)
        assert len(PFVStore(tmp_path / "cut").layer("act1")) == 6
        assert PFVStore(tmp_path / "cut").layer("act1").exemplar(5).name == "005.png"
    collect(model, second, LAYERS, tmp_path / "cut", SETTINGS, append=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_bad_images_are_listed(model: ierf.VisionModel, photos: Photos, tmp_path: Path) -> None:
    folder = photos(7, bad=(0, 3, 4))
    done = collect(model, folder, LAYERS, tmp_path / "s", SETTINGS)
    store = PFVStore(tmp_path / "s")
    assert (
        [name for name, _ in done.skipped] == [name for name, _ in store.skipped] == ["000.png", "003.png", "004.png"]
    )
    assert all("not an image" in reason for _, reason in store.skipped)
    assert len(store) == len(store.layer("act1")) == 4
    assert [store.layer("act1").exemplar(row).name for row in range(4)] == ["001.png", "002.png", "005.png", "006.png"]
    assert bool((store.layer("act1").norms[:] > 0).all())


def test_memory_does_not_grow_with_the_data(model: ierf.VisionModel, tmp_path: Path) -> None:
    """Photographs in memory at once, and what Python holds at most: 500 bytes an image, for names."""

    class Counted:
        """Pictures made when they are read."""

        address, fingerprint = "", "counted"

        def __init__(self, count: int) -> None:
            self.names, self.read_so_far = [f"{i:05d}" for i in range(count)], 0

        def label(self, index: int) -> int:
            return index % 5

        def read(self, index: int) -> Image.Image:
            self.read_so_far += 1
            return Image.new("RGB", (40, 32), (index % 256, 255 - index % 256, 9 * index % 256))

    peaks: dict[int, float] = {}
    for run, count in enumerate((40, 440, 40, 440)):
        images, ahead = Counted(count), [0]

        def look(stage: str, done: int, _: int, images: Counted = images, ahead: list[int] = ahead) -> None:
            ahead[0] = max(ahead[0], images.read_so_far - done)

        tracemalloc.start()
        collect(model, images, LAYERS, tmp_path / f"{run}", Settings(block=10, batch=5), workers=2, progress=look)
        peaks[count] = min(peaks.get(count, np.inf), tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert 0 < ahead[0] <= 2 * 5 + 2 + 1
    assert peaks[440] < 1.25 * peaks[40] + 400 * 500


@pytest.fixture(autouse=True)
def _no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
