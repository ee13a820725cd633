"""Reading a state dict without running code, and filling a network with it."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.model.files import missing

StateDict = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 3


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
    except (RuntimeError, EOFError, OSError, ValueError, KeyError):
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
