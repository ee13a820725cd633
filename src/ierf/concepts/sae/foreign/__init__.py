"""Autoencoders that other libraries wrote, recognised by their files."""

from pathlib import Path

from ierf.concepts.sae.foreign import dictionary_learning, saelens, sparsify
from ierf.concepts.sae.sae import SAE
from ierf.errors import IerfError

_LIBRARIES = {saelens.WEIGHTS: saelens.load, dictionary_learning.WEIGHTS: dictionary_learning.load}


def load_foreign(folder: Path) -> SAE:
    """An autoencoder of SAELens, dictionary_learning or sparsify. Raises `IerfError` for anything else."""
    if (folder / sparsify.WEIGHTS).exists() and (folder / sparsify.CONFIG).exists():
        return sparsify.load(folder)
    for name, load in _LIBRARIES.items():
        if (folder / name).exists():
            try:
                return load(folder)
            except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise IerfError(f"the autoencoder in {str(folder)!r} is damaged: {reason}") from None
    raise IerfError(
        f"there is no autoencoder in {str(folder)!r}: none of sae.safetensors, {', '.join(_LIBRARIES)} lies there"
    )
