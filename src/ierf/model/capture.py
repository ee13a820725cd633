"""The PFVs of layers in a forward pass: reading them, and running on with others in their place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.axes import Channels, Layout, default_axis, layout_of
from ierf.errors import IerfError
from ierf.model.following import Following, Operation, Site, Values, check_values
from ierf.model.forward import evaluating, logits_of
from ierf.model.vision_model import VisionModel, as_vision_model
from ierf.recorder import Geometry, Marks, axis_across, axis_along, storage_of

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
    functions return. Raises an `IerfError` where a layer runs more often for more samples.
    """
    model = as_vision_model(model)
    with torch.no_grad():
        sites = {layer: found.site for layer, found in capture(model, x[:1], list(replacements), values).items()}
    patch = _Patch(sites, replacements)
    with evaluating(model.net), patch.on(model.net):
        output = model.net(patch.start(x))
    for layer, site in sites.items():
        patch.check_calls(layer, site.call, len(x))
    return patch.current(logits_of(output))


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of a tensor."""

    layout: Layout
    entered: "_Entered | None" = None
    """Where an activation function returned it."""


class _Entered(NamedTuple):
    """What entered an activation function, with the axis of its channels, and which one of the pass that is."""

    tensor: Tensor
    axis: int
    activation: int


class _Capture(Following[_Known]):
    """Keeps what layers return; axes of channels are carried from operation to operation."""

    def __init__(self, layers: Sequence[str], values: Values) -> None:
        super().__init__()
        self._layers, self._before_activation = frozenset(layers), values == "pre-activation"
        self._last: _Entered | None = None
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

    def _first(self, x: Tensor) -> _Known:
        return _Known(Layout.along(1, x))

    def _run(self, operation: Operation) -> Any:
        entering, written = operation.entering, operation.written
        self._last = None
        if entering is not None:
            shared = written is not None and storage_of(written) == storage_of(entering.tensor)
            before = entering.tensor.clone() if shared else entering.tensor
            self._last = _Entered(before, self._marks[entering.tensor].layout.axis, entering.activation)
        if written is not None:
            self._save_from(written)
        return operation.run()

    def _note(self, operation: Operation, tensor: Tensor) -> None:
        known = self._marks.exactly(tensor)
        layout = self._layout(operation, tensor) if known is None else known.layout
        returned = any(tensor is one for one in operation.followed)
        if known is None or self._last is not None or returned:
            self._marks[tensor] = _Known(layout, self._last)

    def _layout(self, operation: Operation, output: Tensor) -> Layout:
        name, _, args, kwargs, (main, *_), *_ = operation
        return layout_of(name, args, kwargs, main, self._marks[main].layout, output)

    def _shown(self, mark: _Known, cells: Geometry, tensor: Tensor) -> _Known:
        if mark.layout.taken:
            axis = axis_across(tensor, cells)
        else:
            place = mark.layout.channels[0] if mark.layout.channels else Channels(mark.layout.axis, 1, 1)
            axis = axis_along(tensor, cells.stride[place.axis] * place.inner)
        return _Known(Layout.along(default_axis(tensor) if axis is None else axis, tensor))

    def _changed(self, mark: _Known) -> _Known:
        return _Known(mark.layout)

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        if layer in self._layers:
            known = self._marks[tensor]
            if self._before_activation and known.entered is not None:
                self._kept[layer] = known.entered.tensor, call, known.entered.activation, known.entered.axis
            else:
                self._kept[layer] = tensor, call, None, known.layout.axis
        return tensor

    def _save_from(self, written: Tensor) -> None:
        """A copy of everything kept that shares memory with a tensor that is about to change."""
        storage = storage_of(written)
        for layer, (tensor, *rest) in self._kept.items():
            if storage_of(tensor) == storage:
                self._kept[layer] = (tensor.clone(), *rest)  # type: ignore[assignment]

        def saved(known: _Known) -> _Known:
            if known.entered is None or storage_of(known.entered.tensor) != storage:
                return known
            return _Known(known.layout, known.entered._replace(tensor=known.entered.tensor.clone()))

        self._marks.replace(saved)


class _Patch(Following[bool]):
    """Other PFVs in the place of a layer's own."""

    def __init__(self, sites: Mapping[str, Site], replacements: Mapping[str, Replacement]) -> None:
        super().__init__()
        self._replacements = replacements
        self._outputs = {layer: site for layer, site in sites.items() if site.activation is None}
        self._inputs = {site.activation: site for site in sites.values() if site.activation is not None}
        self._stands_for: Marks[Tensor] = Marks(lambda other, cells, tensor: tensor, lambda other: other)

    def current(self, tensor: Tensor) -> Tensor:
        found = self._stands_for.exactly(tensor)
        return tensor if found is None else found

    def _entering(self, activation: int, x: Tensor) -> Tensor:
        site = self._inputs.get(activation)
        return x if site is None else self._replaced(site, x)

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        site = self._outputs.get(layer)
        return tensor if site is None or site.call != call else self._replaced(site, tensor)

    def _replaced(self, site: Site, tensor: Tensor) -> Tensor:
        with self.aside():
            other = site.tensor(self._replacements[site.layer](site.pfvs(tensor)))
        self._stands_for[tensor] = other
        self._marks[other] = True
        return other

    def _first(self, x: Tensor) -> bool:
        return True

    def _mark(self, operation: Operation, output: Tensor) -> bool:
        return True
