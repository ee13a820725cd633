"""The latents of one layer: which position of which photograph activates them, and on which grid of patches that is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.attribution.token_grid import TokenGrid
from ierf.concepts.sae import SAE
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, capture
from ierf.model.following import Site, Values
from ierf.store.weights import weights_hash

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
        """Rows and columns of the layer's patches, and how many tokens stand in front of them."""
        places = self.site.map
        if len(places) == 2:
            return TokenGrid(0, *places)
        found = TokenGrid.by_aspect(places[0], self.model.preprocess.size) if len(places) == 1 else None
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
