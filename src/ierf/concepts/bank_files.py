"""A bank on disk: what it is to hold, its folder (JSON and safetensors), its repository on the hub."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ierf.concepts.layer_concepts import ClassShares, LayerConcepts, ShiftFrom
from ierf.concepts.tree import ConceptTree, TreeBy
from ierf.errors import IerfError
from ierf.extras import extra, hub
from ierf.model import Values
from ierf.store import WRITER, ModelRecord, PFVStore, check_names, differences, explained, read_json, write, write_json
from ierf.typed import FieldError, parsed, typed

FORMAT = "ierf-concept-bank"
VERSION = 1
MANIFEST = "bank.json"
BEGUN = "begun.json"
"""The manifest's name until all layers are there."""
LAYERS = "layers"
PICTURES = "pictures"
_TREE = ("parents", "sizes", "leaves")
_TREES: Mapping[TreeBy, str] = {
    "bisecting": "tree.",
    "cosine and co-firing": "tree by cosine and co-firing.",
    "cosine": "tree by cosine.",
}
"""What the names of a tree's tensors begin with says what it comes from."""
_TENSORS = ("atoms", "shift", "frequencies", "strengths", "relevances", "exemplars", "cosines")
PREFIX = "hf:"


@dataclass(frozen=True)
class StoreRecord:
    """The store that the concepts come from."""

    address: str | None
    """Its folder; None in a bank that was published."""
    images: int
    names: str
    """SHA-256 of its list of images."""
    method: str
    options: Mapping[str, Any]
    sampling: Mapping[str, Any]


@dataclass(frozen=True)
class BankPlan:
    """All of it. Two fits with equal plans write equal bytes."""

    model: Mapping[str, Any]
    """Name, hash of the weights and preprocessing of the model, as the store has them."""
    labels: tuple[str, ...] | None
    """Names of the model's classes."""
    store: StoreRecord
    extractor: str
    options: Mapping[str, Any]
    """Of the extractor."""
    n_concepts: int | None
    """Of each layer; None: 8 for each channel."""
    seed: int
    l0_ratio: float
    positive: bool
    encoded: int | None
    versions: Mapping[str, str]
    layers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any, where: str) -> "BankPlan":
        """Raises `IerfError` for what is not a bank, or one of a newer version."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise IerfError(f"{where!r} is not a concept bank")
        version, versions = content.get("version"), content.get("versions")
        if type(version) is not int or not 1 <= version <= VERSION:
            writer = versions.get("ierf", "?") if isinstance(versions, dict) else "?"
            raise IerfError(
                f"the bank {where!r} has version {version} of the format and was written by ierf {writer}, "
                f"this ierf reads up to {VERSION}; update ierf"
            )
        try:
            plan = typed({f.name: content[f.name] for f in fields(cls) if f.name in content}, cls)
            typed(plan.model, ModelRecord, "model")
            check_names(plan.layers, "layers")
        except (FieldError, IerfError) as error:
            raise IerfError(f"the bank {where!r} is damaged: {error} in bank.json; fit it anew") from None
        return plan


@dataclass(frozen=True)
class FitSettings:
    """How the concepts of a layer are found, see `ConceptBank.fit`."""

    extractor: str
    options: Mapping[str, Any]
    n_concepts: int | None
    seed: int
    l0_ratio: float
    positive: bool
    encoded: int | None
    device: str


def planned(store: PFVStore, layers: Sequence[str], settings: FitSettings, labels: tuple[str, ...] | None) -> BankPlan:
    from ierf import __version__

    if len(set(layers)) < len(layers):
        raise IerfError("name each layer once")
    for name in layers:
        store.plan.layer(name)
    chosen = {name: value for name, value in vars(settings).items() if name != "device"}
    return BankPlan(
        model=store.plan.model,
        labels=labels,
        store=store_record(store),
        versions={"ierf": __version__, "torch": str(torch.__version__)},
        layers=tuple(layers),
        **chosen,
    )


def store_record(store: PFVStore) -> StoreRecord:
    plan = store.plan
    return StoreRecord(
        address=str(store.path.resolve()),
        images=plan.images,
        names=store.manifest["names_checksum"],
        method=plan.method,
        options=plan.options,
        sampling=plan.sampling,
    )


@dataclass(frozen=True)
class Facts:
    """What the header of a layer's file holds, see `LayerConcepts`."""

    name: str
    shift_from: ShiftFrom
    lam: float
    positive: bool
    values: Values
    map: tuple[int, ...]
    prefix_tokens: int | None
    extractor: Mapping[str, Any]
    rows: int
    encoded: int
    l0_ratio: float
    relative_error: float


_FACTS = tuple(one.name for one in fields(Facts))


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
        tensors |= _of_tree(layer.tree, _TREES[layer.tree.made_by])
    facts = json.dumps({name: getattr(layer, name) for name in _FACTS})
    content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {"layer": facts})
    write(layer_path(folder, layer.name), content)


def read_layer(folder: Path, name: str) -> LayerConcepts:
    """Raises `IerfError` if the file is missing or damaged."""
    with reading(layer_path(folder, name)) as file:
        facts = typed(parsed(file.metadata()["layer"]), Facts)
        if facts.name != name:
            raise FieldError(f"it has the layer {facts.name!r}")
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        trees = [ConceptTree(**parts, made_by=by) for by, start in _TREES.items() if (parts := _under(start, found))]
        layer = LayerConcepts(
            **vars(facts),
            **{key: found[key] for key in _TENSORS},
            class_shares=ClassShares(**_under("class_shares.", found)),
            tree=trees[0] if trees else None,
        )
        _check(layer)
        return layer


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Inside: an open safetensors file. What is missing or damaged becomes an `IerfError`."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise IerfError(f"{str(path)!r} is missing from the bank; fit it anew") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise IerfError(f"{str(path)!r} is damaged ({' '.join(str(error).split())}); fit the bank anew") from None


def write_plan(folder: Path, plan: BankPlan) -> None:
    """What is to come, before the first layer."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BEGUN, plan.to_json())


def begin(folder: Path, plan: BankPlan) -> bool:
    """Make the folder fit to be filled; whether it holds the complete bank of this plan already.

    Raises `IerfError` if it holds something else.
    """
    if (folder / MANIFEST).exists():
        _check_same(folder, MANIFEST, plan)
        return True
    if has_layers(folder):
        _check_same(folder, BEGUN, plan)
        return False
    if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - {BEGUN, WRITER}):
        raise IerfError(f"{str(folder)!r} is not empty and holds no bank; choose another folder")
    write_plan(folder, plan)
    return False


def publish(folder: Path) -> None:
    """From now on the folder is a bank."""
    with explained(folder / MANIFEST):
        (folder / BEGUN).replace(folder / MANIFEST)


def read_plan(path: Path, where: str) -> BankPlan:
    """Raises `IerfError` for a file that is not the description of a bank."""
    return BankPlan.from_json(read_json(path), where)


def _check_same(folder: Path, name: str, plan: BankPlan) -> None:
    if differs := list(differences(read_plan(folder / name, str(folder)).to_json(), plan.to_json())):
        raise IerfError(
            f"the bank {str(folder)!r} was fitted otherwise: {'; '.join(differs)}; "
            "give the same arguments or another folder"
        )


def _check(layer: LayerConcepts) -> None:
    """Raises `FieldError` for tensors of other sizes or types, numbers that are not finite, and rows or nodes that do
    not exist."""
    k, channels = layer.atoms.shape
    kept, entries = layer.exemplars.shape[-1], len(layer.class_shares.classes)
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("frequencies", "strengths", "relevances"), (k,)),
        "shift": (channels,),
        "exemplars": (k, kept),
        "cosines": (k, kept),
    }
    tensors = {name: getattr(layer, name) for name in _TENSORS}
    starts = layer.class_shares.starts
    tensors |= {f"class_shares.{name}": tensor for name, tensor in layer.class_shares._asdict().items()}
    shapes |= {"class_shares.starts": (k + 1,), "class_shares.classes": (entries,), "class_shares.shares": (entries,)}
    whole = ["exemplars", "class_shares.starts", "class_shares.classes"]
    if layer.tree is not None:
        nodes = len(layer.tree.parents)
        tensors |= _of_tree(layer.tree, "tree.")
        shapes |= {"tree.parents": (nodes,), "tree.sizes": (nodes,), "tree.leaves": (k,)}
        whole += ["tree.parents", "tree.sizes", "tree.leaves"]
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != shapes.get(name, tuple(tensor.shape)):
            raise FieldError(f"{name} is {tuple(tensor.shape)}, not {shapes[name]}")
        if tensor.is_floating_point() == (name in whole):
            raise FieldError(f"{name} has the type {str(tensor.dtype).removeprefix('torch.')}")
        if not bool(tensor.isfinite().all()):
            raise FieldError(f"{name} has values that are not finite")
    ranges = {"exemplars": (layer.exemplars, 0, layer.rows), "class_shares.starts": (starts, 0, entries + 1)}
    if layer.tree is not None:
        ranges |= {"tree.leaves": (layer.tree.leaves, 0, nodes), "tree.parents": (layer.tree.parents, -1, nodes)}
    for name, (tensor, low, high) in ranges.items():
        if bool(((tensor < low) | (tensor >= high)).any()):
            raise FieldError(f"{name} points at what does not exist")
    if bool((starts.diff() < 0).any()) or starts[0] != 0 or starts[-1] != entries:
        raise FieldError("class_shares.starts does not go from 0 to the end")
    if layer.tree is not None and bool((layer.tree.parents >= torch.arange(nodes)).any()):
        raise FieldError("tree.parents has a node before its parent")
    if layer.tree is not None:
        under = layer.tree.parents[1:]
        parts = under[under >= 0].bincount(minlength=nodes)
        if bool((under < 0).any() | (parts == 1).any() | (parts > 2).any()):
            raise FieldError("tree.parents splits a node into other than two")
        if bool((parts[layer.tree.leaves] > 0).any()):
            raise FieldError("tree.leaves has a concept at a node that was split")
    if layer.lam < 0 or min(layer.map, default=0) < 1 or not 0 <= layer.encoded <= layer.rows:
        raise FieldError("λ, the size of the map or the number of PFVs is impossible")


def _of_tree(tree: ConceptTree, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": getattr(tree, name) for name in _TREE}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def download(address: str) -> Path:
    """The folder of the bank at `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, from the cache where nothing changed.

    Raises `IerfError` for a repository that does not exist or cannot be reached.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    package: Any = extra("huggingface_hub", "timm")
    try:
        with hub():
            return Path(package.snapshot_download(name, revision=revision or None))
    except Exception as error:
        raise _explained(f"cannot fetch the bank {address!r}", error) from None


def upload(folder: Path, name: str, message: str) -> str:
    """Put a folder into the repository OWNER/NAME, made where it is missing; returns its address.

    Raises `IerfError` where that is not possible: no token, no right to write, no network.
    """
    package: Any = extra("huggingface_hub", "timm")
    try:
        with hub():
            package.create_repo(name, exist_ok=True)
            package.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message)
    except Exception as error:
        raise _explained(f"cannot put the bank into {name!r}", error) from None
    return f"{PREFIX}{name}"


def _explained(what: str, error: Exception) -> IerfError:
    return IerfError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")
