"""What explanations cost, as ratios of times measured in turns: SRD, AttnLRP, collecting, edges, and latents.

The floors. A forward pass and a gradient by the pixels are two passes of matrix products, F each.

- SRD makes the same two; its rules add a few reads of each activation. `bias="norm"` adds the products of every
  convolution with several taps once more: 0.45 F for a ResNet-50, so 1.22 in all. iERFs of P positions would be P
  backward passes, at least P/2 of "P gradients"; by stencils they are some ten to twenty, whatever P is.
- AttnLRP with ε → 0 makes the same two; its rules add a read and a write of each activation function's output, which
  is a percent of a ViT-B's time. The γ-rule needs |W||a| and |W|ᵀs of every linear layer: the products of both passes
  once more, so 2 in all. The iERF of a token in the last block is one backward pass: half of a forward and a gradient.
- Collecting. With B layers the gradients of one number per layer are a forward pass and B backward passes, each from
  its layer to the pixels. Collecting makes the same passes by SRD's rules, one more from the logit to place the draws,
  and `bias="norm"` adds half a forward pass to the first of them.
- Edges, against a loop of one integrated gradient per target as one writes it with captum: for each target its own
  forward passes, U scaled and U V multiplied out over the whole dictionary at every step, and gradients by U. Two
  loops: through the layers between alone, and, as captum's layer methods do, through the whole network with the
  source's output replaced by a hook. With F for the layers between and as much for the way back, S steps and T
  targets, the loop does T S (2 F + 2 D), D = P K C for the dictionary. Shared forward passes and no dictionary leave S
  F (1 + T): at the same steps (1 + T) / 2T of the loop without its dictionary, 0.56 for T = 8. Less is had from D, and
  from fewer steps.
- Latents. An iERF is a forward pass and a backward pass, as a gradient is; the encoder of one PFV adds C·K products.
  The index multiplies every PFV of a layer with the encoder, 2CK operations, where a block of a transformer of width C
  takes 24C² for the same PFV: with K = 8C on every block 1.67 forward passes in all, less what a stem costs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.attribution import attribute, effective_receptive_fields, usual_method
from ierf.attribution.srd import SRDPass
from ierf.cafe import LatentLayer, add_batch, empty, ierfs
from ierf.graph import Alignment, LayerObjective, Reconstruction, integrated_gradients, midpoints
from ierf.model import Section, VisionModel, capture, evaluating
from ierf.rules import SRDRules
from ierf.store import Clock, Dtype, Images, collect_batch, sites
from ierf.store.plan import Settings

Work = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Time of `what` over the time of `peer`; median, smallest and largest ratio of neighbouring runs."""

    what: str
    peer: str
    ratio: float
    lowest: float
    highest: float


def plain_gradient(model: VisionModel, x: Tensor) -> Tensor:
    """The gradient of the predicted logits by the pixels, as one writes it by hand."""
    pixels = x.clone().requires_grad_()
    return torch.autograd.grad(model(pixels).amax(1).sum(), pixels)[0]


def noise(model: VisionModel, n: int, seed: int = 0) -> Tensor:
    """A batch of the model's input size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *model.preprocess.shape, generator=generator).to(model.device, model.dtype)


def cost_of(what: str, work: Work, peer: str, peer_work: Work, rounds: int, times: int = 1) -> Cost:
    """`work` against `times` runs of `peer_work`."""
    seconds_of(work), seconds_of(peer_work)
    ratios = [seconds_of(work) / (times * seconds_of(peer_work)) for _ in range(rounds)]
    return Cost(what, peer, median(ratios), min(ratios), max(ratios))


def seconds_of(work: Work) -> float:
    """Of one run, with what a device still had to do."""
    _finish()
    start = perf_counter()
    work()
    _finish()
    return perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def srd_costs(model: VisionModel, batches: Sequence[int] = (1, 8), rounds: int = 7, seed: int = 0) -> Iterator[Cost]:
    """The costs one after the other, on noise of the model's input size; every ratio comes from interleaved runs."""
    for n in batches:
        x = noise(model, n, seed)
        peer = "forward + gradient"
        for bias in ("drop", "uniform", "norm"):
            work = partial(attribute, model, x, bias=bias)
            yield cost_of(f"SRD, bias {bias}, batch {n}", work, peer, partial(plain_gradient, model, x), rounds)
    x = noise(model, 1, seed)
    for layer, positions in _layers(model, x):
        p = len(positions)
        yield cost_of(
            f"iERFs of {p} positions of {layer}",
            partial(effective_receptive_fields, model, x, layer, positions),
            f"{p} forwards + gradients",
            partial(plain_gradient, model, x),
            max(1, rounds // 3),
            p,
        )


def _layers(model: VisionModel, x: Tensor) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """All positions of the encoder output, and a block of up to 16 × 16 of the last map of a quarter of the side."""
    with SRDPass.of(model, x, SRDRules("drop")) as run:
        cuts = {k: next(run.tape.layer_names(k), None) for k in run.tape.cuts() if 0 < k <= run.encoder}
        named = {k: name for k, name in cuts.items() if name is not None}
        nodes, side = run.tape.nodes, x.shape[-1]
    late = max(named)
    early = max((k for k in named if 4 * nodes[k].map_shape[-1] >= side), default=late)
    for k in (late, early):
        corner = [max(0, (size - 16) // 2) for size in nodes[k].map_shape]
        block = [range(c, min(c + 16, size)) for c, size in zip(corner, nodes[k].map_shape, strict=True)]
        yield named[k], [tuple(p) for p in torch.cartesian_prod(*map(torch.tensor, map(list, block))).tolist()]


VARIANTS: dict[str, dict[str, Any]] = {
    "AttnLRP": {"method": "attnlrp"},
    "CP-LRP": {"method": "cp_lrp"},
    "AttnLRP, γ 0.25 and 0.05": {"method": "attnlrp", "conv_gamma": 0.25, "linear_gamma": 0.05},
}


def attnlrp_costs(
    model: VisionModel, layer: str | None, batches: Sequence[int] = (1, 8), rounds: int = 7, tokens: int = 16
) -> Iterator[Cost]:
    """The costs one after the other, on noise of the model's input size; every ratio comes from interleaved runs.

    layer: where the iERFs of the first `tokens` tokens start; None leaves them out.
    """
    for n in batches:
        x = noise(model, n)
        for name, options in VARIANTS.items():
            work = partial(attribute, model, x, **options)
            yield cost_of(f"{name}, batch {n}", work, "forward + gradient", partial(plain_gradient, model, x), rounds)
    if layer is not None:
        x = noise(model, 1)
        yield cost_of(
            f"iERFs of {tokens} tokens of {layer}",
            partial(effective_receptive_fields, model, x, layer, range(tokens)),
            f"{tokens} forwards + gradients",
            partial(plain_gradient, model, x),
            max(1, rounds // 3),
            tokens,
        )


def collect_costs(
    model: VisionModel, layers: Sequence[str], batch: int = 4, resolution: int = 56, rounds: int = 5
) -> Iterator[Cost]:
    """A batch's PFVs with iERFs at `layers`, then each stage of it, against the plain gradients of the same layers."""
    x, settings = noise(model, batch), Settings(resolution=resolution, batch=batch)
    found, seconds = sites(model, layers, settings), dict[str, float]()
    names = [str(i) for i in range(batch)]
    work = partial(collect_batch, model, x, names, found, settings, Clock({}))
    peer = f"forward + {len(layers)} gradients"
    yield cost_of(
        f"collect, {len(layers)} layers, batch {batch}", work, peer, partial(gradients, model, x, layers), rounds
    )
    for _ in range(rounds):
        collect_batch(model, x, names, found, settings, Clock(seconds))
    for stage, of_stage in seconds.items():
        share = of_stage / sum(seconds.values())
        yield Cost(f"of this: {stage}", "the whole", share, share, share)


def gradients(model: VisionModel, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """The gradient by the pixels of one PFV's sum for each layer, by one forward pass, as one writes it by hand."""
    pixels, outputs = x.clone().requires_grad_(), list[Tensor]()
    hooks = [model.module(name).register_forward_hook(lambda *call: outputs.append(call[2])) for name in layers]
    try:
        model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.autograd.grad(a[:, :, 0, 0].sum(), pixels, retain_graph=True)[0] for a in outputs]


_AT_ONCE = 16


def icat_costs(
    model: VisionModel,
    source: str,
    target: str,
    targets: int = 8,
    ratio: int = 8,
    steps: int = 48,
    rounds: int = 5,
    seed: int = 0,
) -> Iterator[Cost]:
    """All edges into `targets` concepts of one image, with `ratio` random concepts per channel, ten at each position.

    `steps` are those of the loop; with secants a third as many are at least as exact (docs/methods/icat.md).
    """
    x = noise(model, 1, seed)
    with torch.no_grad():
        found = capture(model, x, [source, target])
        section = Section.of(model, x, source, target)
    generator = torch.Generator().manual_seed(seed)
    own, after = found[source].pfvs[0], found[target].pfvs[0]
    codes, atoms = (t.to(own) for t in _dictionary(own, ratio, generator))
    weights, aims = (t.to(own) for t in _dictionary(after, 1, generator))
    score = Alignment(aims[:targets], weights[:, :targets])
    question = LayerObjective(section, score, _AT_ONCE)

    def ours(rule: str, steps: int) -> object:
        x_hat = Reconstruction.of(codes, atoms)
        return integrated_gradients(x_hat, question, rule=rule, steps=steps, tolerance=torch.inf)  # type: ignore[arg-type]

    def whole(pfvs: Float[Tensor, "B P C"]) -> Float[Tensor, "B R D"]:
        return hooked(model, x, source, target, pfvs)

    for name, layers in (("between", section), ("whole network", whole)):
        peer = f"{targets} targets one by one, {name}, {steps} steps"
        loop = partial(one_by_one, codes, atoms, score, layers, steps)
        for rule, own_steps in (("midpoints", steps), ("secants", max(1, steps // 3))):
            what = f"ICAT {source} → {target}, {rule}, {own_steps} steps"
            yield cost_of(what, partial(ours, rule, own_steps), peer, loop, rounds)


def one_by_one(
    codes: Float[Tensor, "P K"],
    atoms: Float[Tensor, "K C"],
    score: Alignment,
    layers: Callable[[Float[Tensor, "B P C"]], Float[Tensor, "B R D"]],
    steps: int,
) -> Float[Tensor, "K T"]:
    """`Σ_p u_pq ∫ ∂S_t/∂u_pq dα` by gradients of U, one target after the other."""
    edges = []
    for t in range(len(score.atoms)):
        own = Alignment(score.atoms[t : t + 1], score.codes[:, t : t + 1], score.shift)
        total = torch.zeros_like(codes)
        for alphas in torch.split(midpoints(steps).to(codes), _AT_ONCE):
            scaled = (alphas[:, None, None] * codes).requires_grad_()
            value = own(layers(scaled @ atoms)).sum()
            total += torch.autograd.grad(value, scaled)[0].sum(0) / steps
        edges.append((codes * total).sum(0))
    return torch.stack(edges, 1)


def hooked(
    model: VisionModel, x: Tensor, source: str, target: str, pfvs: Float[Tensor, "B P C"]
) -> Float[Tensor, "B R D"]:
    """The target's output in a pass of the whole network with the source's output replaced, for maps (N, C, H, W)."""
    kept: dict[str, Tensor] = {}

    def replace(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return pfvs.mT.reshape(len(pfvs), *output.shape[1:]).clone()

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        kept[target] = output

    handles = [
        model.module(source).register_forward_hook(replace),
        model.module(target).register_forward_hook(keep),
    ]
    try:
        with evaluating(model.net):
            model(x.expand(len(pfvs), -1, -1, -1))
    finally:
        for handle in handles:
            handle.remove()
    return kept[target].flatten(2).mT


def _dictionary(
    pfvs: Float[Tensor, "P C"], ratio: int, generator: torch.Generator
) -> tuple[Float[Tensor, "P K"], Float[Tensor, "K C"]]:
    """Random atoms as long as a PFV, and ten coefficients at each position."""
    positions, channels = pfvs.shape
    k = ratio * channels
    atoms = torch.randn(k, channels, generator=generator)
    atoms *= float(pfvs.norm(dim=1).mean()) / atoms.norm(dim=1, keepdim=True)
    places = torch.randint(k, (positions, 10), generator=generator)
    values = torch.rand(positions, 10, generator=generator) / 3
    return torch.zeros(positions, k).scatter_(1, places, values), atoms


_TIMED = 8
"""Every so manieth batch of an index is timed."""


def cafe_costs(
    model: VisionModel,
    layers: Sequence[LatentLayer],
    photographs: Images,
    batches: Sequence[int] = (1, 16),
    rounds: int = 7,
    batch: int = 64,
) -> Iterator[Cost]:
    """The costs one after the other. Photographs are read before the time is taken."""
    method, last = usual_method(model), layers[-1]
    for n in batches:
        x = noise(model, n)
        latents, positions = torch.arange(n) % last.sae.n_latents, torch.arange(n) % last.grid.patches
        for layer in (layers[0], last):
            work = partial(ierfs, layer, x, latents, positions + layer.grid.prefix, method)
            what = f"iERF of a latent of {layer.layer}, batch {n}"
            yield cost_of(what, work, "forward + gradient", partial(plain_gradient, model, x), rounds)
    yield from index_costs(model, layers, photographs, batch)


def index_costs(
    model: VisionModel, layers: Sequence[LatentLayer], photographs: Images, batch: int, seed: int = 0
) -> list[Cost]:
    """An index of all photographs, in a random order: the time of every eighth batch over that of its forward pass.

    The first batches displace most of what is kept, the last ones little; both count as often as they come.
    """
    kept = empty(model, layers, 16, 32)
    order = torch.randperm(len(photographs.names), generator=torch.Generator().manual_seed(seed))
    forward: list[float] = []
    seconds: dict[Dtype, list[float]] = {"float32": [], "bfloat16": []}
    with evaluating(model.net), torch.no_grad():
        for number, numbers in enumerate(torch.split(order, batch)):
            x = torch.stack([model.preprocess(photographs.read(int(i))) for i in numbers])
            x = x.to(model.device, model.dtype)
            add = partial(add_batch, model, layers, kept, x, numbers)
            if number % _TIMED == 0:
                forward.append(seconds_of(partial(model, x)))
                for precision, found in seconds.items():
                    found.append(seconds_of(partial(add, np.random.default_rng(number), dtype=precision)))
            kept = add(np.random.default_rng(number), dtype="bfloat16")
    what = f"index of {sum(layer.sae.n_latents for layer in layers)} latents of {len(layers)} layers"
    return [
        _over(f"{what}, {len(order)} photographs, {precision}", found, forward) for precision, found in seconds.items()
    ]


def _over(what: str, seconds: Sequence[float], forward: Sequence[float]) -> Cost:
    ratios = [one / other for one, other in zip(seconds, forward, strict=True)]
    return Cost(what, "forward", sum(seconds) / sum(forward), min(ratios), max(ratios))
