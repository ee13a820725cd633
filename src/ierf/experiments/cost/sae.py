"""What a training step of a TopK autoencoder costs, as ratios to matrix products measured in the same run.

The floor. Which latents are the k largest is not known before all N·K pre-activations are, so one dense product of
2·N·C·K operations cannot be avoided. Nothing else has to be dense: codes have N·k entries that are not zero, so the
decoder and all four gradients cost 2·N·C·k each. Beside that the choice reads N·K numbers, and Adam its 2·C·K.
A dense implementation makes five such products: both passes of the decoder, the encoder, and its weights' gradient.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from ierf.concepts.sae import SAE, Run, Training
from ierf.experiments.cost.ratio import Cost, cost_of


def sae_costs(
    channels: int = 768,
    latents: int = 6144,
    batch: int = 4096,
    k: int = 32,
    kinds: Sequence[str] = ("topk", "batchtopk", "matryoshka"),
    rounds: int = 7,
    device: str = "cpu",
) -> Iterator[Cost]:
    """A whole training step (loss, gradients, Adam, norms, metrics) against products of the same size, in turns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, generator=generator).to(device)
    weights, codes = torch.randn(latents, channels).to(device), torch.randn(batch, latents).to(device)

    def encoder() -> None:
        torch.mm(x, weights.T)

    def encoder_and_gradient() -> None:
        encoder()
        torch.mm(codes.T, x)

    def dense() -> None:
        for _ in range(2):
            encoder_and_gradient()
        torch.mm(codes, weights)

    for kind in kinds:
        run = Run({"x": SAE(kind, channels, latents, k).to(device)}, Training(samples=10**9, batch=batch))
        step = partial(run.advance, {"x": x})
        size = f"{kind} step, C {channels}, K {latents}, k {k}, batch {batch}"
        yield cost_of(size, step, "encoder product", encoder, rounds)
        yield cost_of(size, step, "encoder product + its weight gradient", encoder_and_gradient, rounds)
        yield cost_of(size, step, "five dense products", dense, max(1, rounds // 2))
