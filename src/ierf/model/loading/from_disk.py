"""Checkpoints on this machine: `bundled:` in the package, `file:` a state dict of your own, with labels from a file."""

import json
import pickle
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ierf.errors import IerfError, UnknownNameError
from ierf.files import missing
from ierf.model.loading.bundled import resnet18_tiny, vit_tiny, world_cnn, world_vit
from ierf.model.loading.source import Source, Spec, parse
from ierf.model.preprocess import Preprocess
from ierf.model.vision_model import VisionModel

StateDict = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 3
_FOLDER = files("ierf.model.loading")
_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18-tiny": resnet18_tiny,
    "vit-tiny": vit_tiny,
    "world-cnn": world_cnn,
    "world-cnn-cue": world_cnn,
    "world-vit": world_vit,
    "world-vit-cue": world_vit,
}


def bundled(spec: Spec) -> VisionModel:
    """The bundled checkpoint, in float32."""
    from safetensors.torch import load_file

    model = untrained(spec.name, None)
    with as_file(_FOLDER / f"{_stem(spec.name)}.safetensors") as path:
        weights = load_file(path)
    model.net.load_state_dict({**model.net.state_dict(), **weights})
    return model


def untrained(name: str, n_classes: int | None) -> VisionModel:
    """The checkpoint's network with random weights; with its labels if it has as many classes."""
    if name not in _NETWORKS:
        raise UnknownNameError("bundled model", name, _NETWORKS)
    card = _card(name)
    labels = [entry["name"] for entry in card["classes"]]
    net = _NETWORKS[name](n_classes or len(labels))
    return VisionModel(net, _preprocess(card["input"]), labels if n_classes in (None, len(labels)) else None, name)


def _preprocess(config: dict[str, Any]) -> Preprocess:
    return Preprocess(
        size=(config["size"], config["size"]),
        resize=config["resize"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )


def _card(name: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((_FOLDER / f"{_stem(name)}.json").read_text())
    return card


def _stem(name: str) -> str:
    return name.replace("-", "_")


BUNDLED = Source(
    load=bundled,
    untrained=untrained,
    options=(),
    what="checkpoints inside the package",
    names=lambda: list(_NETWORKS),
    examples=lambda: ", ".join(_NETWORKS),
    home="this package",
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a `.safetensors`, `.pt` or `.pth` file, by their names in the bare network.

    A dictionary around them (`state_dict`, `model`) and the prefixes that data-parallel training and `torch.compile`
    leave are taken off. Raises `IerfError` for a file that holds anything but tensors, or that would run code.
    """
    if not path.exists():
        raise missing(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = _unwrapped(content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise IerfError(f"{str(path)!r} holds no state dict, a mapping from names to tensors")
    return {_bare(name): tensor for name, tensor in state.items()}


def fill(net: nn.Module, state: StateDict, path: Path) -> None:
    """Copy `state` into `net`; batch counters may be missing. Raises `IerfError` that names the first few misfits."""
    own = net.state_dict()
    problems = [
        _problem("lacks", [name for name in own if name not in state and not name.endswith("num_batches_tracked")]),
        _problem("has the unexpected", [name for name in state if name not in own]),
        _problem("has other shapes for", [_shapes(n, state[n], own[n]) for n in own if _differs(n, state, own)]),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise IerfError(f"{str(path)!r} does not fit the network {type(net).__name__}: it {', and '.join(found)}")
    net.load_state_dict({**own, **state})


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise IerfError(f"{str(path)!r} is not a readable safetensors file: {error}") from None


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported global" in str(error).lower():
            raise _runs_code(path) from None
        raise IerfError(f"{str(path)!r} is not a file of weights that torch can read") from None
    except Exception:  # whatever the unpickler runs into in bytes that are none of its own
        raise IerfError(f"{str(path)!r} is not a file of weights that torch can read") from None


def _runs_code(path: Path) -> IerfError:
    return IerfError(
        f"{str(path)!r} holds more than tensors and would run code when read, so it is refused; "
        "save net.state_dict() alone, best as .safetensors"
    )


def _unwrapped(content: Any) -> Any:
    inner = (content[key] for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping))
    return next(inner, content)


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _differs(name: str, state: StateDict, own: StateDict) -> bool:
    return name in state and state[name].shape != own[name].shape


def _shapes(name: str, given: Tensor, wanted: Tensor) -> str:
    return f"{name} ({'×'.join(map(str, given.shape))} for {'×'.join(map(str, wanted.shape))})"


def _problem(verb: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{verb} {', '.join(names[:SHOWN])}{more}" if names else ""


def read_labels(path: Path) -> list[str]:
    """One label per class: the lines of a text file, or JSON: a list, or an object from indices to labels.

    In JSON an object with a `name` may stand for a label, and an object with `classes` around the list. Raises
    `IerfError` for anything else.
    """
    if not path.exists():
        raise missing(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        return _as_list(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise IerfError(
            f"{str(path)!r} holds no labels: give a text file with one label per line, "
            'or JSON such as ["cat", "dog"] or {"0": "cat", "1": "dog"}'
        ) from None


def _as_list(content: Any) -> list[str]:
    if isinstance(content, dict):
        content = content["classes"] if "classes" in content else [content[str(index)] for index in range(len(content))]
    return [entry if isinstance(entry, str) else str(entry["name"]) for entry in content]


def file_source(named: Mapping[str, Source]) -> Source:
    """The source of models whose network is one of `named` and whose weights lie in a file."""
    builders = {name: source for name, source in named.items() if source.untrained}
    return Source(
        load=lambda spec: from_file(spec, builders),
        untrained=None,
        options=("arch", "labels"),
        what="a state dict of your own, .safetensors or .pt",
        names=list,
        examples=lambda: "file:weights.safetensors?arch=timm:resnet18&labels=labels.txt",
        home="your disk",
    )


def from_file(spec: Spec, builders: Mapping[str, Source]) -> VisionModel:
    """The network `arch`, with as many classes as the file's classifier has, filled with the file's weights."""
    path = Path(spec.name).expanduser()
    state = read_state_dict(path)
    model = _network(spec, builders, state)
    fill(model.net, state, path)
    if "labels" in spec.options:
        labels = read_labels(Path(spec.options["labels"]).expanduser())
        n_classes = _n_classes(model.net, state)
        if n_classes is not None and len(labels) != n_classes:
            raise IerfError(f"{spec.options['labels']!r} names {len(labels)} classes, the network has {n_classes}")
        model.labels = tuple(labels)
    return model


def _network(spec: Spec, builders: Mapping[str, Source], state: StateDict) -> VisionModel:
    if "arch" not in spec.options:
        raise IerfError(f"a file of weights needs its network's name: {spec.text}?arch=timm:resnet18, for example")
    arch = parse(spec.options["arch"])
    if arch.source not in builders:
        raise UnknownNameError("source of networks", arch.source, builders)
    build = builders[arch.source].untrained
    assert build is not None
    model = build(arch.name, None)
    n_classes = _n_classes(model.net, state)
    return model if n_classes in (None, _n_classes(model.net, model.net.state_dict())) else build(arch.name, n_classes)


def _n_classes(net: nn.Module, state: StateDict) -> int | None:
    """The rows of the classifier's kernel in `state`; the classifier is the network's last linear or convolution."""
    kernels = [f"{name}.weight" for name, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return state[kernels[-1]].shape[0] if kernels and kernels[-1] in state else None
