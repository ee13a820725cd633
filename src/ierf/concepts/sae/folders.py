"""The autoencoders of a training run, by layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ierf.concepts.sae.sae import SAE
from ierf.concepts.sae.saving import CONFIG
from ierf.errors import IerfError


def saved_autoencoders(path: Path, layer: str | None = None) -> dict[str, SAE]:
    """Layer -> autoencoder of a folder that `ierf sae train` wrote, or of one autoencoder's.

    `layer` is that of a single autoencoder that does not say which it belongs to, as those of other libraries.
    """
    folders = sorted(file.parent for file in path.rglob(CONFIG)) or [path]
    found = {}
    for folder in folders:
        sae = SAE.load(folder)
        name = sae.about.get("layer") or (layer if len(folders) == 1 else None)
        if name is None:
            raise IerfError(f"the autoencoder in {str(folder)!r} does not say its layer; name it with --layer")
        found[str(name)] = sae
    return found


def trained_values(saes: Mapping[str, SAE], asked: str | None = None) -> Any:
    """`asked`, else the PFVs that all of them were trained on. Raises `IerfError` if they differ."""
    if asked is not None:
        return asked
    values = {sae.about.get("values", "pre-activation") for sae in saes.values()}
    if len(values) > 1:
        raise IerfError(
            f"these autoencoders were trained on different values ({', '.join(sorted(values))}); give those of one kind"
        )
    return values.pop()
