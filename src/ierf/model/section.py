"""A network cut between two layers: what lies between them as a function `M_ab` (arXiv 2605.00474, Sec. VI-B1)."""

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.model.capture import capture
from ierf.model.following import FACTORIES, Following, Operation, Site, Values
from ierf.model.forward import evaluating, logits_of
from ierf.model.vision_model import VisionModel, as_vision_model
from ierf.operations import map_tensors

_ASKS_FOR_DEVICE = frozenset("device is_cuda is_cpu is_meta get_device".split())
_SHAPED_LIKE = frozenset("expand_as view_as reshape_as type_as".split())
"""Take only the shape or type of their second tensor."""


@dataclass(frozen=True, eq=False)
class Section:
    """`M_ab`: the PFVs of a layer a as the PFVs of a later layer b, or as logits (arXiv 2605.00474, Sec. VI-B1).

    The network's own forward runs with the given PFVs at a, up to b. What comes before a is computed in shapes only.
    An operation that needs values from before a is a path around the cut, and refused. Where the PFVs of a are what
    entered its activation function, the section starts with that function.
    """

    model: VisionModel
    source: Site
    target: Site | None
    """None: the logits."""
    example: Tensor
    """Of the network's input, one sample of it, without values."""
    _before: dict[int, list[Any]] = field(default_factory=dict, repr=False)
    """For each batch size, what the operations before the cut return, in shapes."""

    @classmethod
    def of(
        cls,
        model: VisionModel | nn.Module,
        x_example: Float[Tensor, "N 3 H W"],
        source: str,
        target: str | None = None,
        values: Values = "pre-activation",
    ) -> Self:
        """The section from `source` to `target` (None: the logits) for inputs of the size of `x_example`.

        values: see `ierf.model.capture`. The section is tried out on the first sample of `x_example`.

        Raises an `IerfError` that names the operation where another path goes around `source`, for a target that does
        not come after it, and where the section does not give what the network gives.
        """
        model = as_vision_model(model)
        x = x_example[:1].detach()
        ends = [source] if target is None else [source, target]
        with torch.no_grad():
            found = capture(model, x, ends, values)
            site = found[source].site
            section = cls(model, site, None if target is None else found[target].site, x.to("meta"))
            given = section(found[source].pfvs)
            if target is None:
                with evaluating(model.net):
                    expected = logits_of(model.net(x))
            else:
                expected = found[target].pfvs
        if not torch.allclose(given, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().amax())):
            raise IerfError(
                f"run on from {source!r}, the network gives something else at {target or 'the logits'!r} than in one "
                "pass: something in it is hidden (a scripted module) or random; cut elsewhere"
            )
        return section

    def __call__(self, pfvs: Float[Tensor, "N P C"]) -> Float[Tensor, "N ..."]:
        """The PFVs (N, P', C') of the target, or the logits (N, T); differentiable by `pfvs`."""
        given = self.source.tensor(pfvs.to(self.example.dtype))
        cut = _Cut(self.source, self.target, given, self._before.setdefault(len(pfvs), []))
        x = torch.empty((len(pfvs), *self.example.shape[1:]), dtype=self.example.dtype, device="meta")
        try:
            with evaluating(self.model.net), cut.on(self.model.net):
                output = self.model.net(cut.start(x))
        except _Reached as reached:
            assert self.target is not None
            if len(reached.tensor) != len(pfvs):
                raise IerfError(
                    f"{self.target.layer!r} returns {len(reached.tensor)} samples where {len(pfvs)} were given; "
                    "give one sample at a time"
                ) from None
            return self.target.pfvs(reached.tensor)
        cut.check_calls(self.source.layer, self.source.call, len(pfvs))
        logits = cut.current(logits_of(output))
        if logits.is_meta:
            raise IerfError(f"the logits do not depend on {self.source.layer!r} alone; cut at a later layer")
        return logits


class _Reached(BaseException):
    """The target's value exists; no error, and not to be caught by the network."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor


class _Cut(Following[bool]):
    """Tensors before the cut have no values (device "meta"); those after it do, and the two are never mixed."""

    def __init__(self, source: Site, target: Site | None, given: Tensor, shapes: list[Any]) -> None:
        super().__init__()
        self._source, self._target, self._given, self._shapes = source, target, given, shapes
        self._cut_at: Tensor | None = None
        self._ordinal = 0

    def _first(self, x: Tensor) -> bool:
        return True

    def _mark(self, operation: Operation, output: Tensor) -> bool:
        return True

    def current(self, tensor: Tensor) -> Tensor:
        return self._given if tensor is self._cut_at else tensor

    def _entering(self, activation: int, x: Tensor) -> Tensor:
        if activation == self._source.activation:
            return self._cut(x)
        if self._target is not None and activation == self._target.activation:
            self._reach(x)
        return x

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        for site, arrive in ((self._source, self._cut), (self._target, self._reach)):
            if site is not None and site.activation is None and (site.layer, site.call) == (layer, call):
                tensor = arrive(tensor)
        return tensor

    def _cut(self, tensor: Tensor) -> Tensor:
        self._cut_at = tensor
        self._marks[self._given] = True
        return self._given

    def _reach(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            assert self._target is not None
            raise IerfError(
                f"{self._target.layer!r} does not come after {self._source.layer!r} or not from it alone; name layers "
                "from the pixels on, each where every path passes"
            )
        raise _Reached(tensor)

    def _run(self, operation: Operation) -> Any:
        name, func, args, kwargs, followed, _, written = operation
        before = [t for t in followed if t.is_meta]
        if not before:
            return operation.run()
        if name in _ASKS_FOR_DEVICE:
            return func(self._given)
        if name in FACTORIES:
            args, kwargs = map_tensors(self._hollow, (args, kwargs))
            return func(*args, **kwargs)
        if len(before) < len(followed):
            if name in _SHAPED_LIKE and not args[0].is_meta:
                return func(args[0], self._hollow(args[1]), *args[2:], **kwargs)
            raise IerfError(
                f"the network cannot be cut at {self._source.layer!r}: {name!r}{self._where} also uses what comes "
                "before; cut where every path passes, as at the end of a block"
            )
        if written is not None and not written.is_meta:
            raise IerfError(
                f"the network cannot be cut at {self._source.layer!r}: {name!r}{self._where}, which comes before, "
                "writes into another tensor; cut at another layer"
            )
        self._ordinal += 1
        if self._ordinal > len(self._shapes):
            self._shapes.append(self._in_shapes(operation))
        return self._shapes[self._ordinal - 1]

    def _in_shapes(self, operation: Operation) -> Any:
        name, func, args, kwargs, followed, *_ = operation
        if name == "batch_norm":
            return torch.empty_like(followed[0])
        args, kwargs = map_tensors(lambda t: t.detach().to("meta"), (args, kwargs))
        if name in ("cpu", "cuda"):
            return args[0]
        if name == "to":
            args = tuple("meta" if isinstance(a, torch.device | str) else a for a in args)
        if "device" in kwargs:
            kwargs = kwargs | {"device": "meta"}
        try:
            with torch.no_grad():
                return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            raise IerfError(
                f"the network cannot be cut at {self._source.layer!r}: {name!r}{self._where} before it needs values, "
                f"not shapes alone ({error})"
            ) from error

    def _hollow(self, tensor: Tensor) -> Tensor:
        """A tensor for its shape and type only."""
        if not tensor.is_meta:
            return tensor
        return torch.empty((), dtype=tensor.dtype, device=self._given.device).expand(tensor.shape)
