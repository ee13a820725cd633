"""One file with everything that training goes on from; whole at any moment."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ierf.concepts.sae.mixing import Position
from ierf.errors import IerfError
from ierf.store.files import write
from ierf.store.plan import differences
from ierf.typed import FieldError, parsed, typed

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run is: after `step` steps, with these tensors (weights, moments of Adam, samples of silence)."""

    step: int
    positions: tuple[Position, ...]
    """Of the mixing buffers of all ranks."""
    tensors: Mapping[str, Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics so far."""


def save(folder: Path, checkpoint: Checkpoint, run: Mapping[str, Any]) -> None:
    """Write a checkpoint over the last one, all of it or nothing; `run` says what it belongs to."""
    state = {
        "step": checkpoint.step,
        "positions": [asdict(position) for position in checkpoint.positions],
        "history": checkpoint.history,
        "run": run,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write(folder / FILE, safetensors.torch.save(tensors, {"state": json.dumps(state)}))


def find(folder: Path, run: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint in a folder, on the CPU, None if there is none. Raises `IerfError` for another run's."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = parsed(file.metadata()["state"])
            positions = tuple(typed(one, Position) for one in state["positions"])
            step, history, begun = state["step"], state["history"], state["run"]
            if type(step) is not int or step < 0:
                raise FieldError(f"step is {step!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise IerfError(f"{str(path)!r} is no checkpoint of a training run: {error}; remove it to begin anew") from None
    if differs := list(differences(begun, json.loads(json.dumps(run)))):
        raise IerfError(
            f"the run in {str(folder)!r} was begun otherwise: {'; '.join(differs)}; give the same or another folder"
        )
    return Checkpoint(step, positions, tensors, history)
