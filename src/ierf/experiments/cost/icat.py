"""What the edges between two layers cost, against a loop of one integrated gradient per target.

The loop, as one writes it with captum: for each target its own forward passes, U scaled and U V multiplied out over the
whole dictionary at every step, and gradients by U. Two loops: through the layers between alone, and, as captum's layer
methods do, through the whole network with the source's output replaced by a hook.

The floor. With F for the layers between and as much for the way back, S steps and T targets, the loop does
T S (2 F + 2 D), D = P K C for the dictionary. Shared forward passes and no dictionary leave S F (1 + T): at the same
steps (1 + T) / 2T of the loop without its dictionary, 0.56 for T = 8. Less is had from D, and from fewer steps.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.experiments.cost.ratio import Cost, cost_of, noise
from ierf.graph import Alignment, LayerObjective, Reconstruction, integrated_gradients, midpoints
from ierf.model import Section, VisionModel, capture, evaluating

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
