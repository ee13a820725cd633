"""The latents of one layer: which positions activate them, and the pixels that drive them (Sec. V)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.attribution import TokenGrid, attribute, patch_grid, targets
from ierf.concepts.sae import SAE
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Values, VisionModel, capture
from ierf.model.following import Site
from ierf.store import weights_hash

Kind = Literal["patch", "class"]
"""Where a latent is read: at the patch that activates it most, or at the class token, the first of the sequence."""
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class LatentLayer:
    """A layer of a network and an autoencoder of its PFVs."""

    model: VisionModel
    layer: str
    sae: SAE
    values: Values = "pre-activation"

    @cached_property
    def site(self) -> Site:
        """Where the layer's PFVs are in a forward pass. Raises `IerfError` for an autoencoder of another layer."""
        size = self.model.preprocess.shape
        probe = torch.zeros(1, *size, device=self.model.device, dtype=self.model.dtype)
        with torch.no_grad():
            site = capture(self.model, probe, [self.layer], self.values)[self.layer].site
        if site.channels != self.sae.n_features:
            raise IerfError(
                f"{self.layer!r} has {site.channels} channels, its autoencoder {self.sae.n_features}; "
                "it belongs to another layer or model"
            )
        about = self.sae.about
        if about.get("model", self.model.name) != self.model.name and about.get("weights") != weights_hash(
            self.model.net
        ):
            raise IerfError(
                f"the autoencoder of {self.layer!r} was trained on {about['model']}, not on {self.model.name}; "
                "load that model, or train another one with `ierf sae train`"
            )
        return site

    @cached_property
    def grid(self) -> TokenGrid:
        """Rows and columns of the layer's patches, and how many tokens stand in front of them.

        Raises `IerfError` for a layer without rows and columns.
        """
        places = self.site.map
        if len(places) == 2:
            return TokenGrid(0, *places)
        found = patch_grid(self.model, self.layer) if len(places) == 1 else None
        if found is None:
            raise IerfError(f"{self.layer!r} has no grid of patches: its positions are {places}")
        return found

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Both where there is a token in front of the patches."""
        return ("patch", "class") if self.grid.prefix else ("patch",)

    def of_kind(self, codes: Float[Tensor, "N P K"], kind: Kind) -> Float[Tensor, "N p K"]:
        """The codes of the patches, or of the class token."""
        return codes[:, self.positions(kind)]

    def positions(self, kind: Kind) -> slice:
        """Those of the patches, or that of the class token. Raises `IerfError` where there is none."""
        if kind not in self.kinds:
            if kind in KINDS:
                raise IerfError(f"{self.layer!r} has no class token")
            raise UnknownNameError("kind of token", kind, KINDS)
        start, count = (self.grid.prefix, self.grid.patches) if kind == "patch" else (0, 1)
        return slice(start, start + count)

    @torch.no_grad()
    def codes(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N P K"]:
        """The activations of all latents at all positions, row-major, tokens in front of the patches included."""
        pfvs = capture(self.model, x, [self.layer], self.values)[self.layer].pfvs
        return self.encoded(pfvs)

    def encoded(self, pfvs: Float[Tensor, "N P C"]) -> Float[Tensor, "N P K"]:
        """The same of PFVs that are at hand."""
        return self.sae.encode(pfvs.flatten(0, 1).to(self.sae.decoder)).view(*pfvs.shape[:2], -1)

    @torch.no_grad()
    def maps(self, x: Float[Tensor, "N 3 H W"], latents: Int[Tensor, " N"]) -> Float[Tensor, "N h w"]:
        """The activation map of one latent in each sample, over the patches: what is looked at without iERFs."""
        codes = self.of_kind(self.codes(x), "patch")
        chosen = codes.gather(2, latents.to(codes.device).view(-1, 1, 1).expand(-1, codes.shape[1], 1))[..., 0]
        return chosen.view(-1, self.grid.rows, self.grid.columns)

    @torch.no_grad()
    def activations(
        self, x: Float[Tensor, "N 3 H W"], latents: Int[Tensor, " N"], positions: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """The activation of one latent at one position of each sample."""
        pfvs = capture(self.model, x, [self.layer], self.values)[self.layer].pfvs
        there = pfvs[torch.arange(len(x), device=pfvs.device), positions.to(pfvs.device)]
        codes = self.sae.encode(there.to(self.sae.decoder))
        return codes.gather(1, latents.to(codes.device)[:, None])[:, 0]

    def address(self, positions: Int[Tensor, " N"]) -> list[tuple[int, ...]]:
        """Positions as a target takes them: (row, column) of a map, (index,) of a token."""
        return [divmod(p, self.grid.columns) if len(self.site.map) == 2 else (p,) for p in positions.tolist()]


Attribution = Callable[
    [LatentLayer, Float[Tensor, "N 3 H W"], Int[Tensor, " N"], Int[Tensor, " N"]], Float[Tensor, "N h w"]
]
"""Layer, photographs, a latent and a position for each -> a score for each patch, or for each pixel."""


def ierfs(
    layer: LatentLayer,
    x: Float[Tensor, "N 3 H W"],
    latents: Int[Tensor, " N"],
    positions: Int[Tensor, " N"],
    method: str = "attnlrp",
    **options: Any,
) -> Float[Tensor, "N H W"]:
    """The pixels behind one latent at one position of each sample (arXiv 2605.00474, Eq. 10), in one pass of all.

    Relevance begins as the latent's pre-activation and passes the encoder as it passes a linear layer; `method` and
    options as in `ierf.attribute`.
    """
    target = targets.Latent(layer.layer, layer.sae, latents.tolist(), layer.address(positions))
    return attribute(layer.model, x, target, method=method, **options)


def activation(
    layer: LatentLayer, x: Float[Tensor, "N 3 H W"], latents: Int[Tensor, " N"], positions: Int[Tensor, " N"]
) -> Float[Tensor, "N h w"]:
    """The latent's own activations: the ranking that takes where a latent fires for what drives it."""
    return layer.maps(x, latents)


def kernel_shap(
    layer: LatentLayer, x: Float[Tensor, "N 3 H W"], latents: Int[Tensor, " N"], positions: Int[Tensor, " N"]
) -> Float[Tensor, "N H W"]:
    """Shapley values of the patches, from four coalitions for each."""
    return ierfs(layer, x, latents, positions, "kernel_shap", samples=4 * layer.grid.patches)


METHODS: Mapping[str, Attribution] = {
    "attnlrp": ierfs,
    "cp_lrp": partial(ierfs, method="cp_lrp"),
    "integrated_gradients": partial(ierfs, method="integrated_gradients", steps=16),
    "gradient": partial(ierfs, method="gradient"),
    "gradient_x_input": partial(ierfs, method="gradient_x_input"),
    "kernel_shap": kernel_shap,
    "srd": partial(ierfs, method="srd"),
    "activation": activation,
    "random": partial(ierfs, method="random"),
}
"""Name -> attribution."""


def evidence(
    layer: LatentLayer,
    x: Float[Tensor, "N 3 H W"],
    latents: Int[Tensor, " N"],
    positions: Int[Tensor, " N"],
    method: str = "attnlrp",
) -> Float[Tensor, "N rows columns"]:
    """The attribution of each patch of the layer's grid: the sum of its pixels.

    Raises `UnknownNameError` for another method.
    """
    if method not in METHODS:
        raise UnknownNameError("attribution of latents", method, METHODS)
    found = METHODS[method](layer, x, latents, positions)
    return on_grid(found, (layer.grid.rows, layer.grid.columns))


def on_grid(scores: Float[Tensor, "N h w"], grid: tuple[int, int]) -> Float[Tensor, "N rows columns"]:
    """Sums over the cells of a grid; scores that are on it already stay."""
    if scores.shape[1:] == grid:
        return scores
    area = scores.shape[1] * scores.shape[2] / (grid[0] * grid[1])
    return F.adaptive_avg_pool2d(scores[:, None], grid)[:, 0] * area
