"""What one thread does for itself, the others do not notice: warnings and permissions."""

import os
import stat
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread

import numpy as np
import pytest
import torch
from PIL import Image

from ierf.concepts.two_means import row_products
from ierf.files import write
from ierf.model import read_image
from ierf.muted import muted


def test_only_the_thread_that_is_inside_is_muted() -> None:
    inside, go = Event(), Event()

    def quiet() -> None:
        with muted():
            inside.set()
            go.wait(10)
            warnings.warn("of the muted thread", stacklevel=1)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        thread = Thread(target=quiet)
        thread.start()
        inside.wait(10)
        warnings.warn("of another thread", stacklevel=1)
        go.set()
        thread.join()
        with muted(), muted():
            pass
        warnings.warn("afterwards", stacklevel=1)
    assert [str(one.message) for one in heard] == ["of another thread", "afterwards"]


def test_filters_that_are_set_later_do_not_make_a_muted_thread_speak() -> None:
    with warnings.catch_warnings():
        for _ in range(3):
            warnings.simplefilter("error")
            with muted():
                warnings.warn("not said", stacklevel=1)
            with pytest.raises(UserWarning, match="said"):
                warnings.warn("said", stacklevel=1)


def test_photographs_and_clusters_in_threads_leave_the_filters_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that end in another order than they began leave `catch_warnings`' filters behind: nobody may use it."""

    class Unsafe(warnings.catch_warnings):  # type: ignore[type-arg]
        def __enter__(self) -> None:
            assert threading.current_thread() is threading.main_thread(), "swaps the filters of all threads"

    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / "a.png")
    barrier = Barrier(4)

    def work(number: int) -> None:
        barrier.wait(10)
        for _ in range(20):
            read_image(tmp_path / "a.png")
            row_products(torch.ones(3, 2), torch.tensor([0, 2]), torch.tensor([1, 0]), torch.ones(2, 2))

    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(warnings, "catch_warnings", Unsafe)
        list(pool.map(work, range(4)))
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_pillows_limit_stays_for_photographs_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is global: lifted only for a photograph that is above it."""
    Image.new("RGB", (30, 30), "red").save(tmp_path / "a.png")
    seen, opened = [], Image.open

    def watched(path: Path) -> Image.Image:
        seen.append(Image.MAX_IMAGE_PIXELS)
        return opened(path)

    monkeypatch.setattr(Image, "open", watched)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    assert read_image(tmp_path / "a.png").size == (30, 30)
    assert seen == [900]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.png").size == (30, 30)
    assert seen == [900, 100, None]
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_file_has_the_permissions_of_the_process_which_are_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("the umask is that of all threads"))
            write(tmp_path / "a", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
