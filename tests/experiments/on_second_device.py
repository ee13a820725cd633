"""What `test_second_device.py` runs in a process of its own: the device "fake" refuses to mix with the CPU."""

import sys
from pathlib import Path

import fakedev  # type: ignore[import-not-found]
import torch
from support.transformers import LAYER, autoencoder, model, photographs
from torch import nn

import ierf
from ierf.cafe import LatentLayer, build_index, latent_curves
from ierf.concepts.sae import SAE, InMemory, Training, train
from ierf.experiments.concept_costs import lasso_costs
from ierf.experiments.extractors import FitSettings, concept_stability, extractors, parse_recipes
from ierf.experiments.networks import cascade, copied
from ierf.model import VisionModel
from ierf.store import PFVStore

assert fakedev.ext is not None
torch.set_num_threads(1)


def checkpoints(folder: Path) -> None:
    """A run that is killed on one device and resumed on the other ends where one that was not ends, up to rounding."""
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) + 3
    settings = Training(samples=1000, batch=50, buffer=200, warmup=5)

    def trained(device: str, out: Path | None, until: int = 99) -> torch.Tensor:
        def progress(stage: str, step: int, steps: int) -> None:
            if step == until:
                raise KeyboardInterrupt

        sae = SAE("batchtopk", 6, 24, 3, seed=1).to(device)
        try:
            train({"": sae}, InMemory(x.to(device), 0), settings, out, save_every=5, progress=progress)
        except KeyboardInterrupt:
            assert until < 99
        return sae.decoder.detach().cpu()

    whole = trained("cpu", None)
    for first, second in (("cpu", "fake"), ("fake", "cpu"), ("fake", "fake")):
        place = folder / f"{first}-{second}"
        trained(first, place, until=11)
        torch.testing.assert_close(trained(second, place), whole, rtol=1e-4, atol=1e-5)
    print("checkpoints")


def curves(folder: Path) -> None:
    """The index is read from disk, on the CPU, like the scores; the network is on the other device."""
    here = LatentLayer(model(), LAYER, autoencoder())
    index = build_index(here.model, {LAYER: here.sae}, photographs(), folder / "index", batch=4).layer(LAYER)
    latent = int(index.kept.fired.argmax())
    examples = index.top(latent, 2)
    x = torch.cat([here.model.prepare(photographs()[example.image]) for example in examples])
    positions = torch.tensor([example.position for example in examples])
    latents, scores = torch.full((2,), latent), torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0))
    there = LatentLayer(VisionModel(model().net.to("fake"), here.model.preprocess), LAYER, autoencoder().to("fake"))
    expected = latent_curves(here, x, latents, positions, scores)
    found = latent_curves(there, x, latents, positions, scores)
    torch.testing.assert_close(found.insertion.cpu(), expected.insertion, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.deletion.cpu(), expected.deletion, rtol=1e-4, atol=1e-5)
    print("curves")


def sanity() -> None:
    """Buffers are copied and weights are lost there as they are here."""
    here = ierf.load("bundled:resnet18-tiny")
    nets = [list(found.net.state_dict().values()) for found in cascade(here, 1, 0)][-1]
    there = VisionModel(copied(here.net).to("fake"), here.preprocess)
    last = [list(found.net.state_dict().values()) for found in cascade(there, 1, 0)][-1]
    for one, other in zip(nets, last, strict=True):
        torch.testing.assert_close(other.cpu(), one)
    net = nn.BatchNorm2d(3).to("fake")
    before = net.running_mean
    assert copied(net).running_mean is not before
    print("sanity")


def fits(folder: Path) -> None:
    """Concepts are found, their codes made and their matches sought there, and kept as from here."""
    store = PFVStore.collect(model(), photographs(), [LAYER], folder / "store", per_image=9, ierf=False)
    recipes, settings = parse_recipes(["pca", "sae_topk?samples=500&batch=50&k=3"]), FitSettings(6, 0.5)
    kept = []
    for device in ("cpu", "fake"):
        out = folder / f"extractors-{device}"
        found = extractors(store, recipes, out, settings, device=device)
        found |= concept_stability(store, recipes, out, settings, seeds=2, device=device)
        kept.append({name: results.summary for name, results in found.items()})
    for name, rows in kept[0].items():
        for row, cells in rows.items():
            here, there = cells[LAYER].mean, kept[1][name][row][LAYER].mean
            assert abs(there - here) < 1e-3, (name, row, here, there)
    print("fits")


def costs() -> None:
    """What is measured there is right there, beside a peer here."""
    (cost,) = lasso_costs([(16, 128)], active=5, n=20, n_peer=8, rounds=1, device="fake")
    assert abs(cost.active - 5) < 0.3
    assert cost.kkt <= 1.01e-3
    assert abs(cost.objective) < 1e-5
    print("costs")


checkpoints(Path(sys.argv[1]))
curves(Path(sys.argv[1]))
sanity()
fits(Path(sys.argv[1]))
costs()
