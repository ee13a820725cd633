"""Jobs: one thread computes, a bounded queue waits, results stay until newer ones need their room."""

import gc
import hashlib
import hmac
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from time import monotonic
from typing import Any, Literal, NamedTuple

from ierf.errors import IerfError
from ierf.report.server.interruption import Cancelled, Interruptible
from ierf.report.server.limits import RETRY_AFTER, Limits, RefusedError
from ierf.report.server.memory import Memory, give_back
from ierf.report.server.words import without_paths

State = Literal["queued", "running", "done", "failed", "cancelled"]
_OVERHEAD = 4096
"""Bytes that a job takes beside its files."""


class File(NamedTuple):
    """A part of a result that is fetched by itself."""

    media_type: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Result:
    """What a job found."""

    content: Mapping[str, Any]
    """JSON-able; names of files stand for their addresses."""
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(json.dumps(self.content)) + sum(len(file.content) for file in self.files.values())


@dataclass(eq=False)
class Progress:
    """How far a job is."""

    interruptible: Interruptible
    stage: str = ""
    done: int = 0
    total: int | None = None
    """None: not known."""

    def at(self, stage: str, done: int = 0, total: int | None = None) -> None:
        """Say what is done now. Raises `Cancelled` if nobody wants it any more."""
        self.interruptible.check()
        self.stage, self.done, self.total = stage, done, total


Work = Callable[[Progress], Result]


@dataclass(eq=False)
class Job:
    """Something to compute."""

    id: str
    work: Work | None
    """None once it is finished: it holds what it was given, as a decoded photograph."""
    stop: Event = field(default_factory=Event)
    state: State = "queued"
    progress: Progress = field(init=False)
    begun: float = 0.0
    seconds: float = 0.0
    """That the computation took."""
    error: str = ""
    result: Result | None = None

    def __post_init__(self) -> None:
        self.progress = Progress(Interruptible(self.stop))

    @property
    def elapsed(self) -> float:
        return monotonic() - self.begun if self.state == "running" else self.seconds


class Jobs:
    """The queue, the thread that works it off, and what it made. The same request twice is one job.

    Between two jobs only results are kept: recorded passes refer to themselves, so they are collected.
    """

    def __init__(self, limits: Limits) -> None:
        self._secret, self._most = secrets.token_bytes(), limits.queue
        self._waiting: deque[Job] = deque()
        self._active: dict[str, Job] = {}
        self._finished: Memory[Job] = Memory(limits.results)
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name="ierf-jobs", daemon=True)
        self._thread.start()

    def submit(self, key: str, work: Work) -> Job:
        """The job for a request, which `key` says in full. Raises `RefusedError` 503 where too many wait."""
        name = hmac.new(self._secret, key.encode(), hashlib.sha256).hexdigest()[:32]
        with self._changed:
            known = self._active.get(name) or self._finished.get(name)
            if known is not None and not known.stop.is_set() and known.state != "failed":
                return known
            if len(self._waiting) >= self._most:
                raise RefusedError(503, f"{self._most} jobs wait already; try again in a moment", RETRY_AFTER)
            job = Job(name, work)
            self._active[name] = job
            self._waiting.append(job)
            self._changed.notify()
        return job

    def get(self, name: str) -> Job:
        """Raises `RefusedError` 404 for a job that never was, or whose result was forgotten."""
        with self._changed:
            job = self._active.get(name) or self._finished.get(name)
        if job is None:
            raise RefusedError(404, "there is no such job, or its result was forgotten; ask again")
        return job

    def place(self, job: Job) -> int:
        """How many jobs are computed before this one."""
        with self._changed:
            waits = job in self._waiting
            return self._waiting.index(job) + (len(self._active) > len(self._waiting)) if waits else 0

    def cancel(self, name: str) -> Job:
        """Stop a job that waits or runs; one that is finished stays as it is."""
        job = self.get(name)
        with self._changed:
            if job.state in ("queued", "running"):
                job.stop.set()
            if job in self._waiting:
                self._waiting.remove(job)
                self._finish(job, "cancelled")
        return job

    def close(self) -> None:
        """Stop everything."""
        with self._changed:
            self._closed = True
            for job in self._active.values():
                job.stop.set()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state, job.begun = "running", monotonic()
            state = self._attempt(job)
            with self._changed:
                job.seconds = monotonic() - job.begun
                self._finish(job, state)
            del job
            gc.collect()
            give_back()

    def _attempt(self, job: Job) -> State:
        try:
            assert job.work is not None
            with job.progress.interruptible:
                job.result = job.work(job.progress)
        except Cancelled:
            return "cancelled"
        except IerfError as error:
            job.error = without_paths(str(error))
            return "failed"
        except Exception:
            logging.getLogger("ierf").exception("a job failed")
            job.error = "the computation met an error that it did not expect; the server’s log says more"
            return "failed"
        return "done"

    def _finish(self, job: Job, state: State) -> None:
        job.state, job.work = state, None
        if self._active.get(job.id) is job:
            del self._active[job.id]
            self._finished.put(job.id, job, _OVERHEAD + (job.result.size if job.result else 0))
