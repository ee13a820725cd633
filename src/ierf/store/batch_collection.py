"""From a batch of photographs to PFVs, their relevance and their iERFs: one forward pass, one backward pass for all
layers, and at most one more per layer and draw for the iERFs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import prod
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.attribution import RelevancePass, TokenGrid, joint_fields, relevance_pass, usual_method
from ierf.attribution.srd import SRDPass
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.model.forward import lowered
from ierf.store.plan import LayerPlan, Settings, draw, quantised, reduced, reduced_size, stored_positions


class Clock:
    """Adds the time between laps to the stages of a run."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, perf_counter()

    def lap(self, stage: str) -> None:
        """All time since the last lap belongs to this stage."""
        now = perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class Site:
    """A layer as found in a recorded pass, the same in every pass of the network."""

    plan: LayerPlan
    node: int
    """The layer's output, where relevance is read and iERFs start."""
    source: int
    """The node whose PFVs are kept: the layer's output, or what entered the activation that made it."""
    grid: TokenGrid | None
    pixels: int
    """The node at which iERFs end: the pixels, or the patches' first tokens."""
    pixels_grid: TokenGrid | None

    @property
    def prefix(self) -> int:
        """PFVs in front of those that are sampled."""
        return 0 if self.grid is None else self.grid.prefix

    @property
    def sampled(self) -> slice:
        """Where PFVs are drawn from: everything, or the patches."""
        return slice(self.prefix, self.prefix + prod(self.plan.map))


@dataclass(frozen=True)
class Sample:
    """What a batch adds to one layer; `P` rows for each of `N` images."""

    pfvs: Float[np.ndarray, "N P C"]
    positions: Int[np.ndarray, "N P axes"]
    relevances: Float[np.ndarray, "N P"]
    norms: Float[np.ndarray, "N P"]
    ierfs: np.ndarray | None
    """Bytes, (N, P, h, w)."""
    ierf_scales: np.ndarray | None
    """(N, P)."""


Reduced = tuple[np.ndarray | None, np.ndarray | None]
"""iERFs as bytes (N, P, h, w), and their scales (N, P)."""


def sites(model: VisionModel, layers: Sequence[str], settings: Settings) -> list[Site]:
    """Where the layers are, and what will be kept of them, from one pass on noise.

    Raises an `IerfError` for a layer that does not exist, that no relevance reaches or that has one position only.
    """
    if not layers or len(set(layers)) < len(layers):
        raise IerfError("name the layers to collect, each once, as in layers=['layer2.1', 'layer3.1']")
    noise = torch.randn(1, *model.preprocess.shape, generator=torch.Generator().manual_seed(0))
    with _pass(model, noise, settings) as run:
        found = [_site(run, name, settings) for name in layers]
        if settings.prefix_tokens and not any(site.prefix for site in found):
            raise IerfError(
                "none of these layers has tokens in front of its patches; leave prefix_tokens out (--prefix-tokens)"
            )
        for site, relevance in zip(found, _relevances(run, found), strict=True):
            if settings.sampling == "relevance" and site.grid is not None and not relevance[:, site.sampled].any():
                raise IerfError(
                    f"no patch of {site.plan.name!r} has relevance, the logits depend on other tokens of it alone; "
                    "take an earlier layer, or sampling='uniform'"
                )
        return found


def collect_batch(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    names: Sequence[str],
    found: Sequence[Site],
    settings: Settings,
    clock: Clock,
) -> tuple[dict[str, Sample], Int[np.ndarray, " N"]]:
    """A sample of each layer, and the predicted classes. `names` of the images decide the draws."""
    with _pass(model, x, settings) as run:
        predictions = run.logits.detach().argmax(1).cpu().numpy()
        clock.lap("forward")
        maps = _relevances(run, found)
        clock.lap("relevance")
        taken = [_taken(site, relevance, names, settings) for site, relevance in zip(found, maps, strict=True)]
        clock.lap("sampling")
        ierfs = _ierfs(run, found, taken) if settings.ierf else [(None, None)] * len(found)
        clock.lap("iERFs")
        samples = {
            site.plan.name: _sample(run, site, relevance, drawn, fields)
            for site, relevance, drawn, fields in zip(found, maps, taken, ierfs, strict=True)
        }
        clock.lap("sampling")
        return samples, predictions


def method_of(model: VisionModel, settings: Settings) -> str:
    """The method that carries relevance: the one asked for, else the usual one."""
    return settings.method or usual_method(model)


@contextmanager
def _pass(model: VisionModel, x: Tensor, settings: Settings) -> Iterator[RelevancePass]:
    """The recorded pass of a batch, its convolutions and matrix products in bfloat16 where the settings say so."""
    half = settings.dtype == "bfloat16"
    with (
        lowered(model.device.type) if half else nullcontext(),
        relevance_pass(model, x, method_of(model, settings), settings.options) as run,
    ):
        yield run


def _site(run: RelevancePass, name: str, settings: Settings) -> Site:
    node = run.layer(name)
    entry, grid = run.tape.nodes[node], run.grid(node)
    places = (grid.rows, grid.columns) if grid is not None else entry.map_shape
    if prod(places) < 2:
        raise IerfError(f"the output of {name!r} has no positions to sample, its shape is {tuple(entry.tensor.shape)}")
    if settings.per_image > prod(places):
        raise IerfError(f"{name!r} has {prod(places)} positions, so {settings.per_image} per image cannot be taken")
    before = settings.values == "pre-activation" and entry.scalar and len(entry.parents) == 1
    patches = settings.ierf and not isinstance(run, SRDPass)
    pixels = run.first_tokens(node) if patches else 0
    pixels_grid = run.grid(pixels)
    full = (pixels_grid.rows, pixels_grid.columns) if pixels_grid is not None else run.tape.nodes[0].map_shape
    size = reduced_size((full[0], full[1]), settings.resolution) if settings.ierf else None
    prefix_rows = grid.prefix if settings.prefix_tokens and grid is not None else 0
    plan = LayerPlan(
        name,
        entry.tensor.shape[entry.axis],
        tuple(places),
        None if grid is None else grid.prefix,
        "pre-activation" if before else "output",
        prefix_rows + (prod(places) if settings.sampling == "all" else settings.per_image),
        ("patches" if patches else "pixels") if settings.ierf else None,
        size,
        prefix_rows=prefix_rows,
    )
    return Site(plan, node, entry.parents[0] if before else node, grid, pixels, pixels_grid)


def _relevances(run: RelevancePass, found: Sequence[Site]) -> list[Float[np.ndarray, "N positions"]]:
    """The relevance of each PFV to the predicted class: `⟨a_i, g_i⟩` for SRD, `‖a_i ⊙ g_i‖₂` of tokens for AttnLRP."""
    gradients = run.back(*run.start(None), [site.node for site in found])
    maps = []
    for site, gradient in zip(found, gradients, strict=True):
        axis = run.tape.nodes[site.node].axis
        share = gradient * run.pfvs(site.node)
        relevance = share.sum(axis) if isinstance(run, SRDPass) else share.norm(dim=axis)
        maps.append(relevance.flatten(1).double().cpu().numpy())
    return maps


def _taken(
    site: Site, relevance: Float[np.ndarray, "N positions"], names: Sequence[str], settings: Settings
) -> Int[np.ndarray, "N P"]:
    """The PFVs that are kept of each image, by their places in the map, row-major, or the sequence of tokens."""
    known, before = relevance[:, site.sampled], np.tile(np.arange(site.plan.prefix_rows), (len(relevance), 1))
    if settings.sampling == "all":
        drawn = np.tile(np.arange(known.shape[1]), (len(known), 1))
    else:
        weights = known if settings.sampling == "relevance" else np.ones_like(known)
        count = site.plan.rows_per_image - site.plan.prefix_rows
        keys = (f"{settings.seed}/{site.plan.name}/{name}" for name in names)
        drawn = np.stack([draw(of_image, count, key) for of_image, key in zip(weights, keys, strict=True)])
    return np.concatenate([before, drawn + site.prefix], 1)


def _sample(run: RelevancePass, site: Site, relevance: np.ndarray, taken: np.ndarray, ierfs: Reduced) -> Sample:
    values = _values(run, site, taken)
    return Sample(
        values,
        stored_positions(taken, site.plan.map, site.prefix),
        np.take_along_axis(relevance, taken, 1).astype(np.float32),
        np.linalg.norm(values.astype(np.float64), axis=2).astype(np.float32),
        *ierfs,
    )


def _values(run: RelevancePass, site: Site, taken: Int[np.ndarray, "N P"]) -> Float[np.ndarray, "N P C"]:
    pfvs = run.tape.settle(site.source).detach().movedim(run.tape.nodes[site.node].axis, -1).flatten(1, -2)
    index = torch.from_numpy(taken).to(pfvs.device)
    kept: np.ndarray = pfvs.take_along_dim(index[..., None], 1).float().cpu().numpy()
    return kept


def _ierfs(run: RelevancePass, found: Sequence[Site], taken: Sequence[Int[np.ndarray, "N P"]]) -> list[Reduced]:
    """From relevance 1 at every draw's own position: the pixels of all layers together, patches one by one."""
    hot = {site.node: _hot(run, site, of_site) for site, of_site in zip(found, taken, strict=True)}
    pixels = {site.node: hot[site.node] for site in found if site.pixels_grid is None}
    fields = joint_fields(run, pixels) if pixels else {}
    whole = (fields[site.node] if site.node in fields else _on_patches(run, site, hot[site.node]) for site in found)
    return [_reduced(maps, site) for maps, site in zip(whole, found, strict=True)]


def _hot(run: RelevancePass, site: Site, taken: Int[np.ndarray, "N P"]) -> Float[Tensor, "N P *map"]:
    pfvs, entry = run.pfvs(site.node), run.tape.nodes[site.node]
    index = torch.from_numpy(taken).to(pfvs.device)
    hot = pfvs.new_zeros(*index.shape, entry.positions).scatter_(2, index[..., None], 1)
    return hot.view(*index.shape, *entry.map_shape)


def _on_patches(run: RelevancePass, site: Site, hot: Float[Tensor, "N P *map"]) -> Float[Tensor, "N P h w"]:
    """`‖R_q‖₂` of each patch's token (Sec. III-D), by one backward pass for each of an image's draws."""
    assert site.pixels_grid is not None
    maps = []
    for one in hot.unbind(1):
        (gradient,) = run.back(site.node, run.cotangent(site.node, one), [site.pixels])
        tokens = (gradient * run.pfvs(site.pixels)).norm(dim=run.tape.nodes[site.pixels].axis)
        maps.append(site.pixels_grid.to_map(tokens))
    return torch.stack(maps, 1)


def _reduced(maps: Float[Tensor, "N P H W"], site: Site) -> Reduced:
    assert site.plan.ierf_size is not None
    small, scale = quantised(reduced(maps.float().flatten(0, 1), site.plan.ierf_size))
    return small.view(*maps.shape[:2], *small.shape[1:]).cpu().numpy(), scale.view(maps.shape[:2]).cpu().numpy()
