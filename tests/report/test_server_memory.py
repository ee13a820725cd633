"""The memory of `ierf serve` over three hundred photographs, and uploads that come slowly."""

import gc
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import ierf

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from support.served import Client, bank_of_noise, encoded, served

from ierf.model import Preprocess
from ierf.report.server import Limits, ServedModel
from ierf.report.server.jobs import File, JobProgress, Jobs, Result, Work
from ierf.report.server.schemas import RefusedError

MIB = 2**20


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.act = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()
        self.b, self.head = nn.Conv2d(4, 6, 3, 2, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.b(self.act(self.a(x))).relu().mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    model = ierf.VisionModel(Tiny().eval(), Preprocess((16, 16), None), name="tiny")
    return ServedModel.of(model, bank_of_noise(model, ("a", "b"), tmp_path_factory.mktemp("tiny"), 12, 8, 6))


on_linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's count of pages")


@contextmanager
def frozen() -> Iterator[None]:
    """As `ierf serve` begins: what is there already is not looked through for garbage."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


class Cycle:
    """Refers to itself, as a recorded pass does, and is large."""

    def __init__(self) -> None:
        self.me, self.pixels = self, torch.ones(MIB // 4)


@on_linux
def test_three_hundred_jobs_take_no_more_than_the_limits() -> None:
    """Each is given 1 MiB, passes through a cycle of 1 MiB, and finds 1 MiB: 810 MiB, were they kept."""
    jobs = Jobs(Limits(results=8 * MIB))

    def work(given: torch.Tensor) -> Work:
        def run(progress: JobProgress) -> Result:
            found = given + Cycle().pixels
            return Result({}, {"found": File("application/octet-stream", found.numpy().tobytes())})

        return run

    with frozen():
        for number in range(300):
            job = jobs.submit(str(number), work(torch.ones(MIB // 4)))
            while job.state in ("queued", "running"):
                sleep(0.001)
            assert job.state == "done"
            if number == 30:
                before = resident()
        grown = resident() - before
    jobs.close()
    assert grown < 64, f"{grown:.0f} MiB more after 270 jobs"


@on_linux
def test_photographs_take_no_more_than_the_limits(subject: ServedModel) -> None:
    """Each has 5.7 MiB: 30 of them would be 172 MiB."""
    limits, smooth = Limits(photos=16 * MIB, results=16 * MIB), Image.new("RGB", (2000, 1000), "orange")
    kinds = [{"kind": "graph"}, {"kind": "maps", "classes": [1], "resolution": "low"}, *4 * [{"kind": "intervention"}]]
    with frozen(), served(subject, limits=limits) as client:
        for number in range(36):
            smooth.putpixel((0, 0), (number, 0, 0))
            photo = client.upload(smooth, "BMP")
            assert client.finished({**kinds[number % 6], "photo": photo})["state"] == "done"
            if number == 5:
                before = resident()
        grown = resident() - before
    assert grown < 80, f"{grown:.0f} MiB more after 30 photographs"


def test_a_finished_job_lets_go_of_what_it_was_given_and_of_cycles() -> None:
    class Given:
        """Refers to itself, as a recorded pass does."""

        def __init__(self) -> None:
            self.me = self

    jobs, kept = Jobs(Limits()), []

    def submit() -> str:
        given, made = Given(), Given()
        kept.extend([weakref.ref(given), weakref.ref(made)])

        def work(progress: JobProgress) -> Result:
            passing = Given()
            kept.append(weakref.ref(passing))
            return Result({"same": given is not made}, {})

        return jobs.submit("one", work).id

    gc.disable()
    try:
        name = submit()
        until = monotonic() + 20
        while any(one() is not None for one in kept) or len(kept) < 3:
            assert monotonic() < until
            sleep(0.005)
    finally:
        gc.enable()
    result = jobs.get(name).result
    assert result is not None
    assert result.content == {"same": True}
    jobs.close()


def test_a_result_counts_with_its_content() -> None:
    content = {"words": "x" * 1000}
    assert Result(content, {}).size == len(json.dumps(content))


def test_a_job_that_is_just_finishing_is_found() -> None:
    """It goes from one table to the other: who looks between the two must wait."""
    jobs = Jobs(Limits())
    missing, stop = [], []

    def look(name: str) -> None:
        while not stop:
            try:
                jobs.get(name)
            except RefusedError as error:
                missing.append(error)

    put = jobs._finished.put

    def slowly(*arguments: object) -> None:
        sleep(0.05)
        put(*arguments)  # type: ignore[arg-type]

    jobs._finished.put = slowly  # type: ignore[method-assign]
    job = jobs.submit("one", lambda progress: (sleep(0.02), Result({}, {}))[1])
    looking = Thread(target=look, args=(job.id,))
    looking.start()
    while job.state in ("queued", "running"):
        sleep(0.002)
    sleep(0.1)
    stop.append(True)
    looking.join()
    jobs.close()
    assert not missing


def begun_upload(client: Client, content: bytes) -> HTTPConnection:
    """A photograph of which all but the last byte is sent."""
    connection = HTTPConnection("127.0.0.1", client.port, timeout=20)
    connection.putrequest("POST", "/api/photos")
    connection.putheader("content-length", str(len(content)))
    connection.endheaders(content[:-1])
    return connection


def test_uploads_that_come_slowly_keep_no_one_waiting(subject: ServedModel) -> None:
    picture = Image.new("RGB", (20, 20), "red")
    limits = Limits(decoding=2, arriving=9 * len(encoded(picture)) // 2, patience=20)
    with served(subject, limits=limits) as client:
        slow = [begun_upload(client, encoded(picture)) for _ in range(3)]
        sleep(0.2)
        begun = monotonic()
        assert client.upload(Image.new("RGB", (20, 20), "blue"))
        assert monotonic() - begun < 10
        slow.append(begun_upload(client, encoded(picture)))
        sleep(0.2)
        refused = client.ask("POST", "/api/photos", encoded(picture))
        assert refused.status == 503
        assert "retry-after" in refused.headers
        for connection in slow:
            connection.send(encoded(picture)[-1:])
            assert connection.getresponse().status == 201
            connection.close()
        assert client.upload(Image.new("RGB", (20, 20), "green"))
