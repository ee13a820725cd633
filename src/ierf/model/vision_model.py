"""The one object that every explainer takes: a network with its preprocessing, labels and layer names."""

from collections.abc import Callable, Sequence
from itertools import chain
from re import search
from typing import Any, Literal, Self, cast, get_args

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from ierf.errors import IerfError, UnknownNameError
from ierf.model.forward import logits_of
from ierf.model.images import ImageLike, as_image, as_input
from ierf.model.preprocess import Preprocess

Outputs = Literal["classes", "features"]
"""What a network returns: one score for each class, or an embedding."""
_FLOATS = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
_MOST_CHANNELS = 16
"""A first convolution of more is hardly that of the input."""


class VisionModel:
    """A network and what it takes to feed it a photograph and to read its answer; the network itself stays unchanged,
    unless `to` moves it.

    Args:
        net: any `torch.nn.Module`; one that `torch.compile` wrapped is unwrapped.
        preprocess: from a photograph to the network's input; default: 224 px, ImageNet mean and standard deviation
            (over the channels for one, none for another number of channels than one and three, as the first convolution
            has them).
        labels: one name per class, in the order of the logits; default: none, classes go by number.
        name: what reports call the model; default: the network's class.
        outputs: "classes", or "features": an embedding without classes. None: "features" for networks of timm without
            a classifier, backbones of transformers and image towers of open_clip, else "classes".
        verify: whether a recorded pass is compared with the network's own output, once for each shape of its input.
    """

    def __init__(
        self,
        net: nn.Module,
        preprocess: Preprocess | None = None,
        labels: Sequence[str] | None = None,
        name: str | None = None,
        *,
        outputs: Outputs | None = None,
        verify: bool = True,
    ) -> None:
        self.net: nn.Module = getattr(net, "_orig_mod", net)
        self.preprocess = preprocess or Preprocess.of_channels(_input_channels(self.net))
        self.labels = None if labels is None else tuple(labels)
        self.name = name or type(self.net).__name__
        if outputs not in (None, *get_args(Outputs)):
            raise UnknownNameError("kind of outputs", str(outputs), get_args(Outputs))
        self.outputs: Outputs = outputs or _outputs_of(self.net)
        self.verify = verify

    def __repr__(self) -> str:
        return f"VisionModel({self.name!r}, {type(self.net).__name__}, {self.device}, {self.dtype})"

    def __call__(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N T"]:
        """The logits of a prepared batch, in the mode (training or eval) that the network is in."""
        return logits_of(self.net(x))

    @property
    def device(self) -> torch.device:
        """Where the network's first floating-point parameter or buffer lives; the CPU if it has none."""
        return self._reference().device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's first floating-point parameter or buffer; float32 if it has none."""
        return self._reference().dtype

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> Self:
        """Move the network, the caller's own, to a device and to a type: "float32", "bfloat16", "float16", "float64".

        None leaves it where it is. Returns the model itself, like `torch.nn.Module.to`. Raises `IerfError` for a device
        that cannot be used here, `UnknownNameError` for another type.
        """
        kind = None if dtype is None else _FLOATS.get(str(dtype).removeprefix("torch."))
        if dtype is not None and kind is None:
            raise UnknownNameError("type to compute in", str(dtype), _FLOATS)
        self.net.to(None if device is None else usable_device(device), kind)
        return self

    def dtype_for(self, x: Tensor) -> torch.dtype:
        """What `x` is computed in: the network's type; its own where the network has no number that could say."""
        own = any(t.is_floating_point() for t in chain(self.net.parameters(), self.net.buffers()))
        return self.dtype if own else x.dtype

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all submodules, in the order in which the network declares them."""
        return tuple(name for name, _ in self.net.named_modules() if name)

    def module(self, layer: str) -> nn.Module:
        """The submodule called `layer`. Raises `UnknownNameError` with the nearest names."""
        modules: dict[str, nn.Module] = dict(self.net.named_modules())
        if not layer or layer not in modules:
            raise UnknownNameError("layer", layer, self.layers)
        return modules[layer]

    def class_index(self, name_or_index: str | int, n_classes: int | None = None) -> int:
        """The index of a class given by number, digits, label, or one of a label's comma-separated synonyms.

        `n_classes` bounds the index where there are no labels. Raises `UnknownNameError` for a name that no label has,
        `IerfError` for an index out of range or a name that several classes share.
        """
        text = str(name_or_index).strip()
        if isinstance(name_or_index, str) and not text.isdecimal():
            return find_class(text, self.labels or ())
        index = int(name_or_index)
        count = n_classes if n_classes is not None else len(self.labels) if self.labels is not None else None
        if index < 0 or (count is not None and index >= count):
            bound = f"classes 0 to {count - 1}" if count else "classes that are counted from 0"
            raise IerfError(f"there is no class {index}: the model {self.name!r} has {bound}")
        return index

    def indexed(self, target: Any) -> Any:
        """A target with names of classes, alone or in a list, replaced by indices; everything else as it is."""
        if isinstance(target, str):
            return self.class_index(target)
        if isinstance(target, list | tuple):
            return [self.class_index(one) if isinstance(one, str) else one for one in target]
        return target

    def label(self, index: int) -> str:
        """The name of a class, "class 7" where there is none."""
        return self.labels[index] if self.labels is not None and 0 <= index < len(self.labels) else f"class {index}"

    def view(self, image: ImageLike | Tensor) -> Image.Image:
        """The part of a photograph that the network sees, as an RGB picture of the input's size."""
        if (given := as_input(image)) is not None:
            return self.preprocess.picture(self._checked(given))
        return self.preprocess.view(as_image(cast("ImageLike", image)))

    def prepare(self, image: ImageLike | Tensor) -> Float[Tensor, "1 C H W"]:
        """A photograph (a path, a PIL image, or uint8 pixels (H, W, 3)) as a batch of one on the network's device.

        A tensor (C, H, W), or a `.npy` file that holds one, is in the network's own units and taken as it is. Raises
        `IerfError` for one of other channels, or that holds NaN, and for a photograph where the network takes neither
        one nor three channels.
        """
        if (given := as_input(image)) is not None:
            return self._checked(given)[None].to(self.device, self.dtype)
        return self.preprocess(as_image(cast("ImageLike", image)))[None].to(self.device, self.dtype)

    def _checked(self, x: Float[Tensor, "C H W"]) -> Float[Tensor, "C H W"]:
        if x.ndim != 3 or len(x) != self.preprocess.channels or 0 in x.shape:
            raise IerfError(
                f"an input of this network has the shape ({self.preprocess.channels}, height, width), as its "
                f"preprocessing has {self.preprocess.channels} channels; got {tuple(x.shape)}"
            )
        if not bool(torch.isfinite(x).all()):
            raise IerfError("the input holds NaN or infinity")
        return x

    def _reference(self) -> Tensor:
        tensors = chain(self.net.parameters(), self.net.buffers())
        return next((t for t in tensors if t.is_floating_point()), torch.empty(0, dtype=torch.float32, device="cpu"))


def usable_device(device: str | torch.device) -> torch.device:
    """The device of that name. Raises `IerfError` where it cannot be used here."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise IerfError(f"the device {str(device)!r} cannot be used here: {reason}") from None
    return found


def _outputs_of(net: nn.Module) -> Outputs:
    library, kind = type(net).__module__.partition(".")[0], type(net).__name__
    without_head = (
        library == "open_clip"
        or (library == "timm" and getattr(net, "num_classes", None) == 0)
        or (library == "transformers" and not search("For[A-Z]", kind))
    )
    return "features" if without_head else "classes"


def _input_channels(net: nn.Module) -> int:
    """Of the first convolution, in the order in which the network declares them; 3 if any takes 3, or there is none."""
    kinds = (nn.Conv2d, nn.Conv3d)
    found = [module.in_channels for module in net.modules() if isinstance(module, kinds) and module.in_channels]
    return 3 if not found or 3 in found or found[0] > _MOST_CHANNELS else found[0]


def as_vision_model(model: Any) -> VisionModel:
    """`model` itself if it is a `VisionModel`, a bare network wrapped into one; anything else is an `IerfError`."""
    if isinstance(model, VisionModel):
        return model
    if isinstance(model, nn.Module):
        return VisionModel(model)
    hint = '; load it by name first: ierf.load("…")' if isinstance(model, str) else ""
    raise IerfError(f"a model is a VisionModel or a torch.nn.Module, not {type(model).__name__}{hint}")


def find_class(name: str, labels: Sequence[str]) -> int:
    """The index of the label called `name`: whole or one of its comma-separated synonyms, exact spelling first.

    Case, and spaces or underscores, do not matter where the exact spelling finds nothing. A whole label goes before a
    synonym. Raises `UnknownNameError` for no match and `IerfError` for a name that several classes share.
    """
    for spelling in (str.strip, _fold):
        for names_of in (_whole, _synonyms):
            found = _matches(spelling(name), labels, spelling, names_of)
            if len(found) > 1:
                raise IerfError(
                    f"the class name {name!r} is shared by classes {_listed(found)}; give the index instead"
                )
            if found:
                return found[0]
    raise UnknownNameError("class", name, [synonym.strip() for label in labels for synonym in _synonyms(label)])


def _matches(
    name: str, labels: Sequence[str], spelling: Callable[[str], str], names_of: Callable[[str], list[str]]
) -> list[int]:
    return [index for index, label in enumerate(labels) if name in map(spelling, names_of(label))]


def _fold(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _whole(label: str) -> list[str]:
    return [label]


def _synonyms(label: str) -> list[str]:
    return label.split(",")


def _listed(indices: Sequence[int]) -> str:
    return f"{', '.join(map(str, indices[:-1]))} and {indices[-1]}"
