"""One writer at a time: who writes to a folder says so in a file that the operating system locks for it."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ierf.errors import IerfError
from ierf.store.files import explained
from ierf.store.layout import RECORDS
from ierf.store.shard import Shard

WRITER = ".writer"
"""How the names of such files begin, outside of stores."""


@contextmanager
def only_writer(folder: Path, name: str = "") -> Iterator[None]:
    """Inside: no other process writes to this folder, or what is called `name` in it. A dead writer is no writer.

    A folder that is made for this and stays empty is removed again. Raises `IerfError` for a second writer, with the
    first one's host and process. Where the system cannot lock files, nobody is refused.
    """
    path, made = folder / f"{WRITER}{name and '-'}{name}", not folder.exists()
    with explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = _held(folder, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside: no other process prepares, locks or publishes this store; waits for its turn."""
    path = folder / RECORDS / "lock"
    with explained(path):
        file = open(path, "ab")  # noqa: SIM115
    with file:
        _lock(file)
        yield


@contextmanager
def writing(folder: Path, shard: Shard) -> Iterator[None]:
    """Inside: this process is the writer of a shard, and of the whole store if there is one shard.

    Writers of different shards of one division stand each other. The file of a writer that died is taken over.
    Raises `IerfError` for a second writer, with the first one's host and process.
    """
    path = folder / RECORDS / f"writer-{shard.index}-of-{shard.count}"
    with alone(folder):
        for other in sorted(path.parent.glob("writer-*-of-*")):
            if other == path or not other.name.endswith(f"-of-{shard.count}"):
                _remove_or_refuse(folder, other)
        with explained(path):
            file = open(path, "w", encoding="utf-8")  # noqa: SIM115
        _lock(file, wait=False)
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        file.flush()
    try:
        yield
    finally:
        with alone(folder):
            path.unlink(missing_ok=True)
            file.close()


def _held(folder: Path, path: Path) -> IO[str]:
    """The file of a writer, locked: not one that the last writer removed between opening and locking."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            if sys.platform != "win32":
                _lock(file, wait=False)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
                file.flush()
                return file
        except BlockingIOError:
            with file:
                file.seek(0)
                raise _second(folder, _owner(file)) from None
        except BaseException:
            file.close()
            raise
        file.close()


def _second(folder: Path, owner: Mapping[str, str]) -> IerfError:
    return IerfError(
        f"another process is writing to {str(folder)!r} (process {owner['process']} on {owner['host']}); "
        "wait for it, or write to another folder"
    )


def _remove_or_refuse(folder: Path, path: Path) -> None:
    with open(path, "r+", encoding="utf-8") as file:
        owner = _owner(file)
        try:
            _lock(file, wait=False)
        except OSError:
            raise _second(folder, owner) from None
        if owner["host"] not in (socket.gethostname(), "?"):
            raise IerfError(
                f"{str(folder)!r} was left locked by process {owner['process']} on {owner['host']}; "
                f"if it no longer runs, delete {str(path)!r}"
            )
        path.unlink()


def _lock(file: IO[Any], *, wait: bool = True) -> None:
    """The operating system's lock on a file; it ends with the process. Raises `OSError` if another one has it."""
    try:
        import fcntl
    except ImportError:
        raise IerfError("this system cannot lock files; collect stores on Linux or macOS") from None
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner(file: IO[str]) -> dict[str, str]:
    """Host and process of a writer; unknown where it died before it wrote them down."""
    try:
        content = json.load(file)
        return {"host": str(content["host"]), "process": str(content["process"])}
    except (ValueError, KeyError, TypeError):
        return {"host": "?", "process": "?"}
