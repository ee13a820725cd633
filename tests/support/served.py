"""A real server for tests, and a client that says exactly what it is told."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import ierf
from ierf.report.server import Access, Jobs, Limits, ServedModel, create_app, listening, server

FINISHED = ("done", "failed", "cancelled")


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection for each request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()

    def send(self, asked: Any) -> Answer:
        """Ask for a job."""
        return self.ask("POST", "/api/jobs", json.dumps(asked), {"content-type": "application/json"})

    def upload(self, picture: Image.Image, form: str = "PNG", **options: Any) -> str:
        """A photograph's id."""
        answer = self.ask("POST", "/api/photos", encoded(picture, form, **options))
        assert answer.status == 201, answer.body
        return str(answer.json["photo"])

    def finished(self, asked: Mapping[str, Any], seconds: float = 240) -> Any:
        """A job, when it is finished."""
        answer = self.send(asked)
        assert answer.status == 202, answer.body
        return self.wait(answer.json["id"], seconds)

    def wait(self, job: str, seconds: float = 240) -> Any:
        until = monotonic() + seconds
        while monotonic() < until:
            said = self.ask("GET", f"/api/jobs/{job}").json
            if said["state"] in FINISHED:
                return said
            sleep(0.02)
        raise TimeoutError(said)

    def numbers(self, job: Any, name: str) -> np.ndarray:
        """A file of numbers that a job found."""
        return np.load(BytesIO(self.ask("GET", f"/api/jobs/{job['id']}/files/{name}").body), allow_pickle=False)


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """A photograph's file."""
    content = BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


@contextmanager
def served(subject: ServedModel, access: Access | None = None, limits: Limits | None = None) -> Iterator[Client]:
    """A server at a free port of this machine, in a thread."""
    bounds = limits or Limits()
    jobs, bound = Jobs(bounds), listening("127.0.0.1", 0)
    running = server(create_app(subject, jobs, access or Access(), bounds))
    thread = Thread(target=running.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not running.started:
            sleep(0.01)
        yield Client(bound.getsockname()[1])
    finally:
        running.should_exit = True
        thread.join()
        jobs.close()
        bound.close()


def bank_of_noise(
    model: ierf.VisionModel, layers: Sequence[str], folder: Path, photographs: int, per_image: int, concepts: int
) -> ierf.ConceptBank:
    """A bank of few concepts, from photographs of smooth noise."""
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(photographs):
        pixels = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i}.png")
    store = ierf.PFVStore.collect(model, folder / "photos", list(layers), folder / "store", per_image=per_image)
    return ierf.ConceptBank.fit(store, n_concepts=concepts, model=model, path=folder / "bank", l0_ratio=0.5)
