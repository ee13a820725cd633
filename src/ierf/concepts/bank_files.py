"""Where things lie in the folder of a bank: JSON for what was asked, safetensors for what was found."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ierf.concepts.bank_plan import BankPlan
from ierf.concepts.layer_concepts import ClassShares, LayerConcepts
from ierf.concepts.tree import ConceptTree
from ierf.errors import IerfError
from ierf.store.files import explained, write, write_json

MANIFEST = "bank.json"
BEGUN = "begun.json"
"""The manifest's name until all layers are there."""
LAYERS = "layers"
PICTURES = "pictures"

_TENSORS = ("atoms", "shift", "frequencies", "strengths", "relevances", "exemplars", "cosines")
_FACTS = (
    "name",
    "shift_from",
    "lam",
    "positive",
    "values",
    "map",
    "prefix_tokens",
    "extractor",
    "rows",
    "encoded",
    "l0_ratio",
    "relative_error",
)


def layer_path(folder: Path, name: str) -> Path:
    return folder / LAYERS / f"{name}.safetensors"


def has_layers(folder: Path) -> bool:
    """Whether any layer was written."""
    return any((folder / LAYERS).glob("*.safetensors"))


def write_layer(folder: Path, layer: LayerConcepts) -> None:
    """One file for a layer, whole or not at all: its tensors, and in the header its facts as JSON."""
    tensors: dict[str, Tensor] = {name: getattr(layer, name) for name in _TENSORS}
    tensors |= {f"class_shares.{name}": tensor for name, tensor in layer.class_shares._asdict().items()}
    if layer.tree is not None:
        tensors |= {f"tree.{name}": tensor for name, tensor in vars(layer.tree).items()}
    facts = json.dumps({name: getattr(layer, name) for name in _FACTS})
    content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {"layer": facts})
    write(layer_path(folder, layer.name), content)


def read_layer(folder: Path, name: str) -> LayerConcepts:
    """Raises `IerfError` if the file is missing or damaged."""
    with reading(layer_path(folder, name)) as file:
        facts = json.loads(file.metadata()["layer"])
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        tree = ConceptTree(**_under("tree.", found)) if "tree.parents" in found else None
        return LayerConcepts(
            **{**facts, "map": tuple(facts["map"])},
            **{key: found[key] for key in _TENSORS},
            class_shares=ClassShares(**_under("class_shares.", found)),
            tree=tree,
        )


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Inside: an open safetensors file. What is missing or damaged becomes an `IerfError`."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise IerfError(f"{str(path)!r} is missing from the bank; fit it anew") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise IerfError(f"{str(path)!r} is damaged ({' '.join(str(error).split())}); fit the bank anew") from None


def write_plan(folder: Path, plan: BankPlan) -> None:
    """What is to come, before the first layer."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BEGUN, plan.to_json())


def publish(folder: Path) -> None:
    """From now on the folder is a bank."""
    with explained(folder / MANIFEST):
        (folder / BEGUN).replace(folder / MANIFEST)


def read_plan(path: Path, where: str) -> BankPlan:
    """Raises `IerfError` for a file that is not the description of a bank."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise IerfError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError:
        raise IerfError(f"{str(path)!r} is damaged: it is not JSON; fit the bank anew") from None
    return BankPlan.from_json(content, where)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
