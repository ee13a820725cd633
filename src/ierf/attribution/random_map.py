"""No explanation at all: the bottom line of every comparison."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.model_context import running
from ierf.attribution.objective import only_pixels
from ierf.attribution.targets import Target
from ierf.model import VisionModel


def random_map(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    seed: int = 0,
) -> Float[Tensor, "N H W"]:
    """Independent standard normal numbers, one per pixel, whatever the target.

    The generator of a sample is seeded by `seed` and the sample's own pixels: another picture gets another map, and
    the same picture the same one in any batch.
    """
    only_pixels(resolution)
    with running(model, x) as (_, pixels):
        return torch.stack([_normal(sample, seed) for sample in pixels.detach()])


def _normal(pixels: Float[Tensor, "C H W"], seed: int) -> Float[Tensor, "H W"]:
    content = pixels.cpu().contiguous().numpy().tobytes()
    digest = hashlib.blake2b(content, digest_size=4, salt=seed.to_bytes(8, "little", signed=True)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.randn(pixels.shape[1:], generator=generator).to(pixels)
