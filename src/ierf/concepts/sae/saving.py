"""Autoencoders on disk: `sae.safetensors` and `config.json`, each written whole."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ierf.concepts.sae.training import Training
from ierf.errors import IerfError
from ierf.store import read_json, write, write_json
from ierf.typed import FieldError, parsed, typed

FORMAT, VERSION = "ierf-sae", 1
WEIGHTS, CONFIG = "sae.safetensors", "config.json"


@dataclass(frozen=True)
class Config:
    """What `config.json` holds, see `SAE.config`."""

    kind: str
    n_features: int
    n_latents: int
    k: int
    seed: int
    options: Mapping[str, Any]
    training: Training
    about: Mapping[str, Any]
    shift: Any = None
    name: str = ""


def save(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Write weights, buffers and configuration, all of each file or nothing."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    rule = _rule(typed(parsed(json.dumps(config)), Config))
    write(folder / WEIGHTS, safetensors.torch.save(tensors, {"rule": json.dumps(rule)}))
    write_json(folder / CONFIG, {"format": FORMAT, "version": VERSION, **config})


def is_saved(folder: Path) -> bool:
    """Whether `save` wrote to it."""
    return (folder / WEIGHTS).exists() and (folder / CONFIG).exists()


def read_state(path: Path, config: Config) -> dict[str, Tensor]:
    """The weights and buffers. Raises `FieldError` where they are those of another configuration, or not finite."""
    with safetensors.safe_open(path, "pt") as file:
        known = (file.metadata() or {}).get("rule")
        if known is not None and parsed(known) != _rule(config):
            raise FieldError("kind, sizes or options there are others")
        if (shape := tuple(file.get_slice("decoder").get_shape())) != (config.n_latents, config.n_features):
            raise FieldError(f"the decoder is {shape} there, n_latents × n_features here")
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in state.items():
        unknown = tensor.isnan() | (tensor.isinf() if not name.endswith("log_threshold") else tensor.isposinf())
        if bool(unknown.any()):
            raise FieldError(f"{name} has values that are not finite")
    return state


def read_config(path: Path) -> Config:
    """Raises `IerfError` that names the file and the field which is missing or of another type."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise IerfError(f"{str(path)!r} is not that of an autoencoder of version {VERSION}")
    try:
        return typed({name: value for name, value in content.items() if name not in ("format", "version")}, Config)
    except (FieldError, IerfError) as error:
        raise IerfError(f"{str(path)!r} is damaged: {error}") from None


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Inside: what is damaged in a file of weights, or belongs to another config, becomes an `IerfError`."""
    try:
        yield
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, ValueError, TypeError, IerfError) as error:
        raise IerfError(f"{str(path)!r} does not fit its config.json: {' '.join(str(error).split())}") from None


def _rule(config: Config) -> dict[str, Any]:
    """What the weights mean nothing without."""
    return {name: getattr(config, name) for name in ("kind", "n_features", "n_latents", "k", "options")}
