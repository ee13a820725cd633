"""Autoencoders on disk: `sae.safetensors` and `config.json`; and those that others wrote."""

from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ierf.concepts.sae.sae import SAE
from ierf.errors import IerfError
from ierf.model.files import missing
from ierf.store.files import read_json, write, write_json

FORMAT, VERSION = "ierf-sae", 1
WEIGHTS, CONFIG = "sae.safetensors", "config.json"


def save(sae: SAE, folder: Path) -> None:
    """Write weights, buffers and configuration, all of each file or nothing."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sae.state_dict().items()}
    write(folder / WEIGHTS, safetensors.torch.save(state))
    write_json(folder / CONFIG, {"format": FORMAT, "version": VERSION, **sae.config})


def load(path: Path) -> SAE:
    """What `save` wrote, bit for bit; else what `ierf.concepts.sae.foreign` can read. No file can run code."""
    from ierf.concepts.sae.foreign import load_foreign

    if not path.exists():
        raise missing(path)
    if not (path / WEIGHTS).exists() or not (path / CONFIG).exists():
        return load_foreign(path)
    config = read_json(path / CONFIG)
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise IerfError(f"{str(path / CONFIG)!r} is not that of an autoencoder of version {VERSION}")
    try:
        sae = SAE.from_config(config)
        state = safetensors.torch.load_file(path / WEIGHTS)
        sae.to(state["decoder"].dtype).load_state_dict(state)
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise IerfError(
            f"{str(path / WEIGHTS)!r} does not fit its config.json: {' '.join(str(error).split())}"
        ) from None
    if damaged := [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
        raise IerfError(f"{str(path / WEIGHTS)!r} is damaged: {damaged[0]} holds NaN or infinity")
    return sae
