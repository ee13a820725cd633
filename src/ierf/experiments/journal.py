"""A run over images that outlives its process, and which model it was of."""

import gc
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.progress import Progress, StepCounter
from ierf.store import only_writer

Values = Mapping[str, Mapping[str, float | None]]
"""What was measured on one image: row -> column -> value; None where it is not defined."""

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""What `progress=` was for one version: goes through a sequence and shows how far it is."""
_F = TypeVar("_F", bound=Callable[..., Any])


def takes_track(run: _F) -> _F:
    """A run that takes `track=` for `progress=` too, for one version, with a warning."""

    @wraps(run)
    def taking(*args: Any, track: Track | None = None, **options: Any) -> Any:
        if track is None:
            return run(*args, **options)
        warnings.warn("track= is called progress= now, see ierf.progress", DeprecationWarning, stacklevel=2)
        return run(*args, **options, progress=_as_progress(track))

    return taking  # type: ignore[return-value]


def _as_progress(track: Track) -> Progress:
    """Goes one further through the numbers of the units whenever one begins, and behind the last one."""
    units: list[Iterator[Any]] = []

    def told(stage: str, done: int, total: int) -> None:
        if not done:
            units.append(iter(track(range(total))))
        next(units[-1], None)

    return told


@dataclass(frozen=True)
class Journal:
    """The finished images of one run: a first line with its settings, then a line of JSON for each image.

    A line counts once its end is on disk: what a killed process left half-written is cut off. The file is made with
    the first finished image, so that a run which fails at once leaves nothing behind.
    """

    path: Path
    settings: Mapping[str, Any]
    finished: dict[str, Values | None] = field(default_factory=dict)
    """Image -> what was measured; None for an image that was left out."""

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> "Journal":
        """The journal at `path`, with what a run of the same settings has finished.

        Raises `IerfError` that names what differs if the file belongs to a run with other settings.
        """
        journal = cls(path, json.loads(json.dumps(settings)))
        journal.read()
        return journal

    def read(self) -> None:
        """Look again what is finished. Raises `IerfError` as `open` does."""
        path, wanted, lines = self.path, self.settings, _complete_lines(self.path)
        self.finished.clear()
        if not lines:
            return
        found = _parsed(path, lines[0])
        if not isinstance(found, dict):
            raise _no_record(path)
        differing = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
        if differing:
            raise IerfError(
                f"{str(path)!r} belongs to a run with other settings ({', '.join(_change(found, wanted, differing))}); "
                "write to another folder with --out, or remove that file"
            )
        for line in lines[1:]:
            entry = _parsed(path, line)
            if not isinstance(entry, dict) or not {"image", "values"} <= entry.keys():
                raise _no_record(path)
            self.finished[entry["image"]] = entry["values"]

    def add(self, image: str, values: Values | None) -> None:
        """Put an image's line on disk, whole."""
        line = json.dumps({"image": image, "values": values}) + "\n"
        if not self.path.exists():
            line = json.dumps(self.settings) + "\n" + line
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise IerfError(f"cannot write {str(self.path)!r}: {error.strerror or error}") from error
        self.finished[image] = values


def run_over(
    images: Sequence[str], journal: Journal, measure: Callable[[str], Values | None], progress: Progress | None
) -> dict[str, Values]:
    """What `measure` says of each image, in the order given; an image that the journal has is not measured again.

    Memory holds one image at a time, and the numbers: recorded passes refer to themselves, so they are collected here.
    `measure` returns None for an image that has no part in this. Raises `IerfError` while another process writes to
    this journal, and where one with other settings was quicker to begin it.
    """
    with only_writer(journal.path.parent, journal.path.name):
        _cut(journal.path)
        journal.read()
        steps = StepCounter(progress, len(images))
        for image in images:
            steps.begin("measuring")
            if image not in journal.finished:
                journal.add(image, measure(image))
                gc.collect()
        steps.begin("measuring")
    found = ((image, journal.finished[image]) for image in images)
    return {image: values for image, values in found if values is not None}


def _complete_lines(path: Path) -> list[bytes]:
    """The lines that were written to their end."""
    content = path.read_bytes() if path.is_file() else b""
    return content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]


def _cut(path: Path) -> None:
    """Take off the file what comes after its last line's end; only its writer may."""
    whole = sum(len(line) + 1 for line in _complete_lines(path))
    if not whole:
        path.unlink(missing_ok=True)
    elif whole < path.stat().st_size:
        os.truncate(path, whole)


def _parsed(path: Path, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise _no_record(path) from None


def _no_record(path: Path) -> IerfError:
    return IerfError(f"{str(path)!r} is not the record of a run; write to another folder with --out")


def _change(found: Mapping[str, Any], wanted: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{name}: {_short(found.get(name))} there, {_short(wanted.get(name))} here" for name in names]


def _short(value: object, at_most: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= at_most else f"{text[:at_most]}…"


def model_fingerprint(model: VisionModel) -> str:
    """A digest of the network's class and its modules' settings, its weights and its preprocessing.

    Two networks may have the same weights and differ in what their modules say of themselves: an activation, a stride.
    """
    modules = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model.net))
    digest = hashlib.sha256(f"{type(model.net).__qualname__} {model.preprocess} {modules}".encode())
    for name, tensor in {**dict(model.net.named_buffers()), **model.net.state_dict()}.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return content
