"""Autoencoders on disk: `sae.safetensors` and `config.json`; and those that others wrote."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from ierf.concepts.sae.sae import SAE
from ierf.concepts.sae.settings import Training
from ierf.errors import IerfError
from ierf.files import missing
from ierf.store.files import read_json, write, write_json
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


def save(sae: SAE, folder: Path) -> None:
    """Write weights, buffers and configuration, all of each file or nothing."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sae.state_dict().items()}
    config = typed(parsed(json.dumps(sae.config)), Config)
    write(folder / WEIGHTS, safetensors.torch.save(state, {"rule": json.dumps(_rule(config))}))
    write_json(folder / CONFIG, {"format": FORMAT, "version": VERSION, **sae.config})


def load(path: Path) -> SAE:
    """What `save` wrote, bit for bit; else what `ierf.concepts.sae.foreign` can read. No file can run code."""
    from ierf.concepts.sae.foreign import load_foreign

    if not path.exists():
        raise missing(path)
    if not (path / WEIGHTS).exists() or not (path / CONFIG).exists():
        return load_foreign(path)
    config = read_config(path / CONFIG)
    with _reading(path / WEIGHTS) as file:
        known = (file.metadata() or {}).get("rule")
        if known is not None and parsed(known) != _rule(config):
            raise FieldError("kind, sizes or options there are others")
        if (shape := tuple(file.get_slice("decoder").get_shape())) != (config.n_latents, config.n_features):
            raise FieldError(f"the decoder is {shape} there, n_latents × n_features here")
        sae = SAE.from_config(asdict(config))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, tensor in state.items():
            unknown = tensor.isnan() | (tensor.isinf() if not name.endswith("log_threshold") else tensor.isposinf())
            if bool(unknown.any()):
                raise FieldError(f"{name} has values that are not finite")
        sae.to(state["decoder"].dtype).load_state_dict(state)
    return sae


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
def _reading(path: Path) -> Iterator[Any]:
    """Inside: the open file of weights. What is damaged, or belongs to another config, becomes an `IerfError`."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, ValueError, TypeError, IerfError) as error:
        raise IerfError(f"{str(path)!r} does not fit its config.json: {' '.join(str(error).split())}") from None


def _rule(config: Config) -> dict[str, Any]:
    """What the weights mean nothing without."""
    return {name: getattr(config, name) for name in ("kind", "n_features", "n_latents", "k", "options")}
