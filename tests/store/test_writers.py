"""One writer for a folder, whatever is written to it; the second one gets a sentence."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.networks import SIZE, SmallNet

import ierf
from ierf.cafe import build_index
from ierf.concepts import ConceptBank
from ierf.concepts.sae import SAE, InMemory, Training, train
from ierf.errors import IerfError
from ierf.model import Preprocess
from ierf.store import PFVStore
from ierf.store import files as locks
from ierf.store.files import WRITER, only_writer

SECOND = rf"another process is writing to .* \(process {os.getpid()} on {socket.gethostname()}\); wait for it"


def hold(folder: Path, begun: Any, end: Any) -> None:
    with only_writer(folder):
        begun.set()
        end.wait(30)


def test_another_process_is_named_and_one_that_died_is_taken_over(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, begun, end))
    other.start()
    try:
        assert begun.wait(30)
        with pytest.raises(IerfError, match=rf"process {other.pid} on {socket.gethostname()}"), only_writer(tmp_path):
            pytest.fail("there are two writers")
    finally:
        other.kill()
        other.join()
    assert [path.name for path in tmp_path.iterdir()] == [WRITER]
    with only_writer(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_one_thing_in_a_folder_has_its_own_writer(tmp_path: Path) -> None:
    refused = pytest.raises(IerfError, match=SECOND)
    with only_writer(tmp_path, "one"), only_writer(tmp_path, "other"), refused, only_writer(tmp_path, "one"):
        pytest.fail("there are two writers")
    with only_writer(tmp_path, "one"):
        pass


def test_a_folder_that_stays_empty_is_removed_again(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_writer(tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()
    with only_writer(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_file_that_was_removed_before_it_was_locked_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last writer removes its file between another's opening and locking it: that one must look again."""
    lock, calls = locks._lock, []

    def late(file: Any, *, wait: bool = True) -> None:
        if not calls:
            os.unlink(file.name)
        calls.append(file.name)
        lock(file, wait=wait)

    monkeypatch.setattr(locks, "_lock", late)
    with only_writer(tmp_path), pytest.raises(IerfError, match=SECOND), only_writer(tmp_path):
        pytest.fail("there are two writers")
    assert len(calls) == 3


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IerfError, match="cannot write"), only_writer(tmp_path / "file" / "folder"):
        pytest.fail("it was made")


def second_bank(store: PFVStore, folder: Path) -> None:
    ConceptBank.fit(store, n_concepts=4, l0_ratio=0.5, path=folder)


def second_training(store: PFVStore, folder: Path) -> None:
    source = InMemory(torch.randn(100, 6), 0)
    train({"": SAE("topk", 6, 8, 2)}, source, Training(samples=100, batch=50, buffer=100, warmup=1), folder)


def second_index(store: PFVStore, folder: Path) -> None:
    model = ierf.VisionModel(SmallNet().eval(), Preprocess(SIZE, None))
    build_index(model, {"conv2": SAE("topk", 8, 16, 2)}, [Image.new("RGB", (20, 16), "red")], folder)


@pytest.mark.parametrize("second", [second_bank, second_training, second_index])
def test_the_second_writer_is_refused_and_changes_nothing(
    tmp_path: Path, second: Callable[[PFVStore, Path], None]
) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(6):
        Image.effect_noise((20, 16), 40 + 20 * i).convert("RGB").save(tmp_path / "photos" / f"{i}.png")
    model = ierf.VisionModel(SmallNet().eval(), Preprocess(SIZE, None))
    store = PFVStore.collect(model, tmp_path / "photos", ["conv2"], tmp_path / "store", per_image=4)
    folder = tmp_path / "out"
    with only_writer(folder):
        with pytest.raises(IerfError, match=SECOND):
            second(store, folder)
        assert [path.name for path in folder.iterdir()] == [WRITER]
    second(store, folder)
    assert WRITER not in {path.name for path in folder.iterdir()}
