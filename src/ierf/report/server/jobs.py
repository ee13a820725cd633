"""Jobs: one thread computes, a bounded queue waits, and results stay until newer ones need their room."""

import ctypes
import gc
import hashlib
import hmac
import json
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from threading import Condition, Event, Lock, Thread
from time import monotonic
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from ierf.errors import IerfError
from ierf.report.server.schemas import RETRY_AFTER, Limits, RefusedError, redacted


class Cancelled(BaseException):
    """Nobody wants the result any more; no error, and not to be caught by a network."""


class Interruptible(TorchFunctionMode):
    """Inside this context every operation on tensors is counted, and the next one after `stop` raises `Cancelled`.

    It is raised once, and never in the place of switching gradients on or off: contexts such as `torch.no_grad`
    end by an operation as well, and what they have changed has to be put back.
    """

    def __init__(self, stop: Event) -> None:
        super().__init__()
        self.operations = 0
        self._stop = stop
        self._raised = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._raised and func is not torch._C._set_grad_enabled:
            self.check()
        self.operations += 1
        return func(*args, **(kwargs or {}))

    def check(self) -> None:
        """Raises `Cancelled` after `stop`."""
        if self._stop.is_set():
            self._raised = True
            raise Cancelled


T = TypeVar("T")


class LRUCache(Generic[T]):
    """Values by name, of at most `capacity` bytes together; the newest always stays. Safe to share among threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._used = capacity, 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def put(self, name: str, value: T, size: int) -> None:
        with self._lock:
            self._used += size - self._values.pop(name, (value, 0))[1]
            self._values[name] = value, size
            while self._used > self._capacity and len(self._values) > 1:
                self._used -= self._values.popitem(last=False)[1][1]

    def get(self, name: str) -> T | None:
        """The value, which counts as used now; None if it was forgotten or never there."""
        with self._lock:
            if name not in self._values:
                return None
            self._values.move_to_end(name)
            return self._values[name][0]


def give_back() -> None:
    """What was freed returns to the operating system: glibc keeps it for each thread that ever decoded or computed."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """None where the C library is another one."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


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
class JobProgress:
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


Work = Callable[[JobProgress], Result]


@dataclass(eq=False)
class Job:
    """Something to compute."""

    id: str
    work: Work | None
    """None once it is finished: it holds what it was given, as a decoded photograph."""
    stop: Event = field(default_factory=Event)
    state: State = "queued"
    progress: JobProgress = field(init=False)
    begun: float = 0.0
    seconds: float = 0.0
    """That the computation took."""
    error: str = ""
    result: Result | None = None

    def __post_init__(self) -> None:
        self.progress = JobProgress(Interruptible(self.stop))

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
        self._finished: LRUCache[Job] = LRUCache(limits.results)
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
            job.error = redacted(str(error))
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
