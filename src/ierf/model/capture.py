"""The PFVs of layers in a forward pass: reading them, and running on with others in their place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ierf.axes import INDEXED_AWAY, channel_axis, default_axis
from ierf.errors import IerfError
from ierf.model.following import Following, Operation, Site, Values, check_values
from ierf.model.forward import evaluating, logits_of
from ierf.model.vision_model import VisionModel, as_vision_model

Replacement = Callable[[Float[Tensor, "N P C"]], Float[Tensor, "N P C"]]
"""The PFVs that take the place of a layer's own."""


@dataclass(frozen=True, eq=False)
class Captured:
    """A layer in one forward pass."""

    tensor: Tensor
    """As the network has it."""
    site: Site

    @property
    def axis(self) -> int:
        """Of the channels in `tensor`."""
        return self.site.axis

    @property
    def values(self) -> Values:
        """Whether the PFVs are what entered the layer's last activation function."""
        return self.site.values

    @property
    def pfvs(self) -> Float[Tensor, "N P C"]:
        """All positions row-major; of a sequence all tokens, those in front of the patches too."""
        return self.site.pfvs(self.tensor)


def capture(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    layers: Sequence[str],
    values: Values = "pre-activation",
) -> dict[str, Captured]:
    """The PFVs of `layers`, from one forward pass in evaluation mode; gradients as they are switched outside.

    values: "pre-activation": where a layer's output is that of an activation function, what entered it; else, and with
    "output", what the layer returns. Of a layer that runs several times the last is taken.

    Raises an `IerfError` for a layer that does not exist or does not run, and for one that returns no batch of samples.
    """
    model = as_vision_model(model)
    check_values(values)
    for layer in layers:
        model.module(layer)
    watch = _Capture(layers, values)
    with evaluating(model.net), watch.on(model.net):
        model.net(watch.start(x))
    return {layer: watch.captured(layer, len(x)) for layer in layers}


def patched(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    replacements: Mapping[str, Replacement],
    values: Values = "pre-activation",
) -> Float[Tensor, "N T"]:
    """The logits with other PFVs at some layers: each function gets the layer's own (N, P, C) and returns others.

    What is replaced earlier changes what later functions get. `values` as in `capture`. Differentiable by whatever the
    functions return.
    """
    model = as_vision_model(model)
    with torch.no_grad():
        sites = {layer: found.site for layer, found in capture(model, x[:1], list(replacements), values).items()}
    patch = _Patch(sites, replacements)
    with evaluating(model.net), patch.on(model.net):
        output = model.net(patch.start(x))
    return patch.current(logits_of(output))


class _Capture(Following):
    """Keeps what layers return; axes of channels are carried from operation to operation."""

    def __init__(self, layers: Sequence[str], values: Values) -> None:
        super().__init__()
        self._layers, self._before_activation = frozenset(layers), values == "pre-activation"
        self._entered: Any = WeakIdKeyDictionary()
        self._kept: dict[str, tuple[Tensor, int, int | None, int]] = {}

    def captured(self, layer: str, samples: int) -> Captured:
        if layer not in self._kept:
            raise IerfError(f"the layer {layer!r} returns nothing that depends on the pixels in a forward pass")
        tensor, call, activation, axis = self._kept[layer]
        if tensor.ndim < 2 or len(tensor) != samples or axis == 0:
            raise IerfError(
                f"{layer!r} returns {tuple(tensor.shape)} for {samples} samples, no tensor of samples, positions and "
                "channels; take the block around it"
            )
        return Captured(tensor, Site(layer, call, activation, axis, tuple(tensor.shape[1:])))

    def _run(self, operation: Operation) -> Any:
        if operation.written is not None:
            self._save_from(operation.written)
        entering, before = operation.entering, None
        if entering is not None:
            before = entering.tensor.clone() if entering.tensor is operation.written else entering.tensor
            self._marks[before] = self._marks[entering.tensor]
        output = operation.run()
        if isinstance(output, Tensor):
            self._entered.pop(output, None)
            if entering is not None:
                self._entered[output] = before, entering.activation
        return output

    def _mark(self, operation: Operation, output: Tensor) -> int:
        name, _, args, kwargs, (main, *_), *_ = operation
        axis = channel_axis(name, args, kwargs, main, self._marks[main], output)
        return default_axis(output) if axis == INDEXED_AWAY else axis

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        if layer in self._layers:
            kept, activation = (self._before_activation and self._entered.get(tensor)) or (tensor, None)
            self._kept[layer] = kept, call, activation, self._marks[kept]
        return tensor

    def _save_from(self, written: Tensor) -> None:
        """A copy of everything kept that shares memory with a tensor that is about to change."""
        for layer, (tensor, *rest) in self._kept.items():
            if tensor.untyped_storage().data_ptr() == written.untyped_storage().data_ptr():
                self._kept[layer] = (tensor.clone(), *rest)  # type: ignore[assignment]


class _Patch(Following):
    """Other PFVs in the place of a layer's own."""

    def __init__(self, sites: Mapping[str, Site], replacements: Mapping[str, Replacement]) -> None:
        super().__init__()
        self._replacements = replacements
        self._outputs = {layer: site for layer, site in sites.items() if site.activation is None}
        self._inputs = {site.activation: site for site in sites.values() if site.activation is not None}
        self._stands_for: Any = WeakIdKeyDictionary()

    def current(self, tensor: Tensor) -> Tensor:
        found: Tensor = self._stands_for.get(tensor, tensor)
        return found

    def _entering(self, activation: int, x: Tensor) -> Tensor:
        site = self._inputs.get(activation)
        return x if site is None else self._replaced(site, x)

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        site = self._outputs.get(layer)
        return tensor if site is None or site.call != call else self._replaced(site, tensor)

    def _replaced(self, site: Site, tensor: Tensor) -> Tensor:
        other = site.tensor(self._replacements[site.layer](site.pfvs(tensor)))
        self._stands_for[tensor] = other
        self._marks[other] = 1
        return other
