"""FullGrad: what the pixels and every bias of the network contribute to the score (arXiv 1905.00780)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ierf.attribution.cam import enlarged, quotient
from ierf.attribution.objective import Objective, explaining_logits, for_rows, logit_value, only_pixels, portions
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.targets import Target
from ierf.attribution.token_grid import TokenGrid
from ierf.deprecated import renamed
from ierf.errors import IerfError, UnknownNameError, UnsupportedOperationError
from ierf.model import VisionModel, as_vision_model
from ierf.operations import CONVOLUTIONS, JOINING, LINEAR, SELECTING, map_tensors
from ierf.rules import Backward, record
from ierf.rules.call import Call

Psi = Literal["rescaled", "signed"]

_SUMS = frozenset(["add", "sub", "rsub"]) | JOINING
_AFFINE = (
    CONVOLUTIONS
    | _SUMS
    | {"linear", "addmm", "batch_norm", "mul", "div", "matmul", "pad", "constant_pad_nd", "tensordot"}
    | {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
)
"""Affine in one activation (sums and sequences: in all of them), so that the implicit bias is the value at zero."""
_BIAS_FREE = (LINEAR | SELECTING) - _AFFINE - {"grid_sample"}


@dataclass(frozen=True)
class FullGradients:
    """The parts that a score is made of: `y(x) = Σ x ⊙ ∂y/∂x + Σ_b Σ b ⊙ ∂y/∂b`."""

    pixels: Float[Tensor, "N C H W"]
    """`x ⊙ ∂y/∂x`."""
    biases: dict[str, Float[Tensor, "N K *map"]]
    """Operation and module -> `b ⊙ ∂y/∂b`, in the order of the network; inside an attention K holds all but queries."""
    grids: dict[str, TokenGrid]
    """Operation and module -> the patches among the positions, where these are tokens."""

    @property
    def total(self) -> Float[Tensor, " N"]:
        """Their sum: the score itself."""
        parts = [self.pixels, *self.biases.values()]
        return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)


@renamed(at_once="batch")
def fullgrad(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    psi: Psi = "rescaled",
    batch: int = 16,
) -> Float[Tensor, "N H W"]:
    """`Σ_channels ψ(x ⊙ ∂y/∂x) + Σ_layers Σ_channels ψ(b ⊙ ∂y/∂b)` (Srinivas & Fleuret, arXiv 1905.00780).

    Every bias counts: of convolutions and linear layers, the implicit one of batch-norm (β − γ μ / σ), class tokens and
    position embeddings, and of any other operation `f` that of its linearisation, `f(a) − f'(a) a` (zero for ReLU).

    Args:
        psi: "rescaled" is the paper's `ψ`: absolute values, brought to [0, 1] within the sample and layer, scaled up
            bilinearly, cells as areas (`align_corners=False`, as all maps here; the authors' code puts the outer cells
            on the picture's corners: maps correlate with its at 0.96 to 0.99). It leaves out biases without positions
            (those of the head), as the authors' code does, and those of class and register tokens. "signed" only scales
            up, spreading each value over the pixels below it (over all, if there are none), so that the map sums to the
            logit (up to what borders gain or lose where the sides of a map do not divide the picture's).
        batch: most samples in one pass.

    Raises:
        IerfError: a bias has positions that are neither rows and columns nor tokens, as those of windows.
    """
    only_pixels(resolution)
    if psi not in get_args(Psi):
        raise UnknownNameError("choice for psi", psi, get_args(Psi))
    with explaining_logits(model, x, target) as y:
        size = tuple(y.pixels.shape[2:])
        maps = []
        for some, _ in portions(len(y.pixels), 1, batch):
            parts = _decompose(y, some)
            shown = {name: part for name, part in parts.biases.items() if part.ndim > 2 or psi == "signed"}
            biases = [_psi(part, name, parts.grids.get(name), psi, size) for name, part in shown.items()]
            maps.append(torch.stack([_psi(parts.pixels, "", None, psi, size), *biases]).sum(0))
        return torch.cat(maps)


def full_gradients(model: VisionModel | nn.Module, x: Float[Tensor, "N 3 H W"], target: Target = None) -> FullGradients:
    """All parts of the score, in one pass. They sum to it exactly if the target is a logit (`FullGradients.total`)."""
    with explaining_logits(as_vision_model(model), x, target) as y:
        return _decompose(y, slice(0, len(y.pixels)))


def _decompose(y: Objective, some: slice) -> FullGradients:
    found: list[tuple[Tensor, Tensor]] = []

    def with_bias(call: Call) -> Any:
        output = call.run()
        bias = _at_zero(call) if _is_affine(call) else _off_the_tangent(call)
        if isinstance(output, Tensor) and isinstance(bias, Tensor) and bool(bias.any()):
            found.append((output, bias))
        return output

    pixels = y.pixels[some].detach().requires_grad_()
    backward = Backward()
    rules, forward = dict.fromkeys(_BIAS_FREE, Call.run), y.forward
    tape = record(y.net, pixels, rules, with_bias, backward, forward.recorded, forward.plain)
    target = for_rows(y.target, torch.arange(len(y.pixels))[some], len(y.pixels))
    score = logit_value(tape.settle(tape.output), target).sum()
    slopes = torch.autograd.grad(score, [pixels, *(output for output, _ in found)], allow_unused=True)
    run, nodes = RecordedPass(tape, backward), {id(node.tensor): k for k, node in enumerate(tape.nodes)}
    biases, grids = {}, {}
    for (output, bias), slope in zip(found, slopes[1:], strict=True):
        k = nodes[id(output)]
        if slope is not None:
            name = f"{k}: {tape.describe(k)}"
            biases[name], grid = _placed(run, k, (bias * slope).detach())
            if grid is not None:
                grids[name] = grid
    return FullGradients((pixels * slopes[0]).detach(), biases, grids)


def _placed(run: RecordedPass, node: int, part: Tensor) -> tuple[Float[Tensor, "N K *map"], TokenGrid | None]:
    """Channels first, positions last. In a transformer positions are tokens, or rows and columns like its patches.

    Inside an attention these are the queries: the first axis as long as the sequence. What has no such axis comes
    behind a pooling and has no positions.
    """
    entry, n = run.tape.nodes[node], len(run.pfvs(0))
    mixed = len(part) != n
    if mixed and n > 1:
        raise IerfError(
            f"samples cannot be told apart at {run.tape.describe(node)!r}, of shape {tuple(part.shape)}; "
            "explain one at a time (batch=1)"
        )
    grids = {k: grid for k in run.tape.cuts() if k <= node and (grid := run.grid(k)) is not None}
    sequence, around = max(grids.items(), default=(0, None))
    grid = run.grid(node)
    if not mixed and (around is None or grid or not entry.map_shape or around.is_shape_of(entry.map_shape)):
        return part.movedim(entry.axis, 1), grid
    values = part.movedim(entry.axis, -1)[None] if mixed else part.movedim(entry.axis, -1)
    length = run.tape.nodes[sequence].positions
    axis = next((i for i, size in enumerate(values.shape[1:-1], 1) if size == length), None)
    if axis is not None and around is not None:
        return values.movedim(axis, -1).flatten(1, -2), around
    return values.movedim(-1, 1).flatten(2) if mixed else part.flatten(1), None


def _is_affine(call: Call) -> bool:
    return call.name in _AFFINE and (call.name in _SUMS or len(call.activations()) == 1)


def _at_zero(call: Call) -> Any:
    """What the operation returns where its activations are zero."""
    zeroed = map_tensors(lambda t: torch.zeros_like(t) if id(t) in call.tracked else t, (call.args, call.kwargs))
    with torch.no_grad():
        return call.func(*zeroed[0], **zeroed[1])


def _off_the_tangent(call: Call) -> Any:
    """`f(a) − f'(a) a`: where the tangent at the activations meets zero."""
    points = {id(t): t.detach() for t in call.activations()}

    def function(*values: Tensor) -> Any:
        given = dict(zip(points, values, strict=True))
        args, kwargs = map_tensors(lambda t: given.get(id(t), t), (call.args, call.kwargs))
        return call.func(*args, **kwargs)

    at = tuple(points.values())
    try:
        with sdpa_kernel(SDPBackend.MATH):
            value, slope = torch.func.jvp(function, at, at)[:2]
    except (RuntimeError, NotImplementedError) as error:
        where = f" (called by the module {call.place.module!r})" if call.place.module else ""
        raise UnsupportedOperationError(
            f"FullGrad needs the bias of the operation {call.name!r}{where}, which cannot be linearised: {error}"
        ) from error
    return (value - slope).detach() if isinstance(value, Tensor) else None


def _psi(
    part: Float[Tensor, "N K *map"], name: str, grid: TokenGrid | None, psi: Psi, size: tuple[int, ...]
) -> Float[Tensor, "N H W"]:
    if grid is not None:
        patches = grid.to_map(part)
        others = part.sum((1, 2)) - patches.sum((1, 2, 3)) if psi == "signed" else part.new_zeros(len(part))
        return _psi(patches, name, None, psi, size) + others[:, None, None] / (size[0] * size[1])
    cells = part if part.ndim > 2 else part[:, :, None, None]
    if cells.ndim != 4:
        raise IerfError(
            f"the bias of {name.partition(': ')[2]!r} has positions {tuple(cells.shape[2:])}, which are not rows and "
            "columns of a picture; full_gradients gives its parts, attribute another method's map"
        )
    if psi == "signed":
        spread = cells.shape[2] * cells.shape[3] / (size[0] * size[1])
        return enlarged(cells.sum(1, keepdim=True) * spread, size)[:, 0]
    strength = cells.abs()
    low, high = strength.amin((1, 2, 3), keepdim=True), strength.amax((1, 2, 3), keepdim=True)
    return enlarged(quotient(strength - low, high - low).sum(1, keepdim=True), size)[:, 0]
