"""Files that survive a killed process and a power cut, and whose turn it is to write them."""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from ierf.errors import IerfError
from ierf.files import put
from ierf.typed import FieldError, parsed

RECORDS = "collection"
"""The folder, in that of a store, of what is not Zarr: the plan, the images' names, the markers of blocks, locks."""
WRITER = ".writer"
"""How the name of a writer's lock begins, outside of stores."""


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`, all of it or nothing, over what was there; on return it is on the disk.

    Raises `IerfError` that names the file and the reason: no permission, no space, a folder in the way.
    """
    with explained(path):
        put(path, content, durable=True)


def write_json(path: Path, content: Any) -> None:
    """The same for JSON, indented, keys in the order given."""
    write(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `IerfError` if it is damaged."""
    try:
        return parsed(path.read_bytes())
    except OSError as error:
        raise IerfError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except FieldError as error:
        raise IerfError(f"{str(path)!r} is damaged: {error}; make it anew") from None


def checksum(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Inside: what the operating system refuses becomes an `IerfError`."""
    try:
        yield
    except OSError as error:
        way_out = (
            "give the name of a folder"
            if isinstance(error, FileExistsError | NotADirectoryError)
            else "finished blocks stay, and the same command goes on from there"
        )
        raise IerfError(f"cannot write {str(path)!r}: {error.strerror or error}; {way_out}") from error


@dataclass(frozen=True)
class Shard:
    """Every `count`-th block, from block `index` on."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise IerfError(
                f"there is no shard {self.index} of {self.count}; shards are counted from 0, as in 0/4 … 3/4"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """A shard from `i/n`, counted from 0."""
        index, slash, count = text.partition("/")
        if not (slash and index.strip().isdecimal() and count.strip().isdecimal()):
            raise IerfError(f"a shard is given as i/n, counted from 0, as in 0/4; got {text!r}")
        return cls(int(index), int(count))

    @classmethod
    def of_this_process(cls) -> "Shard":
        """By rank: of `torch.distributed` where it runs, else of `torchrun`'s environment, else everything."""
        if _distributed():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def owns(self, block: int) -> bool:
        return block % self.count == self.index


def wait_for_all() -> None:
    """Until every rank is here, if `torch.distributed` runs."""
    if _distributed():
        torch.distributed.barrier()


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


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
