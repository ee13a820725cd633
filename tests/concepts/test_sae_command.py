"""`ierf sae`: train, evaluate, show, from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import ierf
from ierf.cli import main
from ierf.cli.sae import _processes
from ierf.concepts import SAE
from ierf.concepts.sae.training import Run
from ierf.experiments.concept_costs import sae_costs
from ierf.experiments.sae import evaluate_saes, strongest
from ierf.model import capture, patched

QUICK = ["--samples", "2000", "--batch", "100", "--buffer", "1000", "-K", "64", "-k", "4", "--lr", "0.01"]


def command(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, ["sae", *map(str, arguments)], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(12):
        pixels = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("saes")
    result = command("train", "--data", photos, "-l", "layer3.1,layer4.1", "--kind", "matryoshka", "--out", out, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(out)
    return out


def test_train_makes_an_autoencoder_for_each_layer(trained: Path, photos: Path) -> None:
    sae = SAE.load(trained / "layer3.1")
    assert (sae.kind, sae.n_latents, sae.k) == ("matryoshka", 64, 4)
    assert sae.about["layer"] == "layer3.1"
    assert SAE.load(trained / "layer4.1").n_features == 256
    history = json.loads((trained / "history.json").read_text())
    assert history[-1]["step"] == 20
    assert history[-1]["layer3.1"]["l0"] == pytest.approx(4, abs=0.1)
    again = command(
        "train", "--data", photos, "-l", "layer3.1,layer4.1", "--kind", "matryoshka", "--out", trained, *QUICK
    )
    assert again.exit_code == 0
    assert torch.equal(SAE.load(trained / "layer3.1").decoder, sae.decoder)


def test_evaluate_measures_what_it_says(trained: Path, photos: Path, tmp_path: Path) -> None:
    result = command("evaluate", trained, "--data", photos, "--out", tmp_path / "e.json")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "e.json").read_text())["layer3.1"]
    model, sae = ierf.load("bundled:resnet18-tiny"), SAE.load(trained / "layer3.1")
    x = torch.cat([model.prepare(path) for path in sorted(photos.iterdir())])
    with torch.no_grad():
        pfvs = capture(model, x, ["layer3.1"])["layer3.1"].pfvs.flatten(0, 1)
        codes = sae.transform(pfvs)
        fvu = (pfvs - codes @ sae.components_ - sae.shift_).square().sum() / (pfvs - pfvs.mean(0)).square().sum()
        clean = model(x)
        classes = clean.argmax(1)
        logits = patched(model, x, {"layer3.1": lambda v: sae(v.flatten(0, 1)).view_as(v)})
        empty = patched(model, x, {"layer3.1": lambda v: sae.shift_.expand_as(v)})
        losses = [torch.nn.functional.cross_entropy(one, classes).item() for one in (clean, logits, empty)]
    assert found["pfvs"] == len(pfvs)
    assert found["fvu"] == pytest.approx(fvu.item(), rel=1e-3)
    assert found["l0"] == pytest.approx((codes > 0).sum().item() / len(pfvs), rel=1e-3)
    assert found["dead"] == pytest.approx((~(codes > 0).any(0)).float().mean().item())
    assert [found[name] for name in ("loss", "loss_patched", "loss_empty")] == pytest.approx(losses, rel=1e-3)
    assert found["recovered"] == pytest.approx(1 - (losses[1] - losses[0]) / (losses[2] - losses[0]), rel=1e-2)


def test_a_perfect_autoencoder_recovers_everything(photos: Path) -> None:
    model = ierf.load("bundled:vit-tiny")
    sae = SAE("l1", 192, 384, form="gig")
    with torch.no_grad():
        identity = torch.eye(192)
        sae.encoder.copy_(torch.cat([identity, -identity]))
        sae.decoder.copy_(torch.cat([identity, -identity]))
        sae.encoder_bias.zero_()
    found = evaluate_saes(model, {"blocks.2": sae}, photos, batch=5)["blocks.2"]
    assert found.pfvs == 12 * 65
    assert found.fvu < 1e-10
    assert found.recovered == pytest.approx(1, abs=1e-4)
    assert found.agreement == 1
    assert found.loss_empty == pytest.approx(found.loss_zero)


def test_show_frames_the_strongest_patches(trained: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    result = command("show", trained, "--layer", "layer3.1", "--data", photos, "--count", "3", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert np.asarray(Image.open(out)).std() > 10
    model, sae = ierf.load("bundled:resnet18-tiny"), SAE.load(trained / "layer3.1")
    found = strongest(model, sae, "layer3.1", photos, count=3, batch=5)
    x = torch.cat([model.prepare(path) for path in sorted(photos.iterdir())])
    with torch.no_grad():
        pfvs = capture(model, x, ["layer3.1"])["layer3.1"].pfvs
        codes = sae.transform(pfvs.flatten(0, 1)).view(12, -1, 64)
    top, images = codes.amax(1).T.topk(3)
    torch.testing.assert_close(found.values, top, rtol=1e-3, atol=1e-3)
    living = top[:, -1] > 0
    assert torch.equal(found.images[living], images[living])
    latent = int(living.nonzero()[0])
    assert int(found.patches[latent, 0]) == int(codes[images[latent, 0], :, latent].argmax())


def test_mistakes_are_one_sentence(trained: Path, photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "o")
    for arguments in (
        ["train", "--data", "nowhere", "-l", "layer3", "--out", out],
        ["train", "--data", photos, "-l", "layer9", "--out", out],
        ["train", "--data", photos, "-l", "layer4", "--kind", "topkk", "--out", out],
        ["train", "--data", photos, "-l", "layer4", "-k", "100000", "--out", out],
        ["train", "-l", "layer4", "--out", out],
        ["train", "--data", photos, "-l", "layer4", "--model", "bundled:nothing", "--out", out],
        ["train", "--data", photos, "-l", "layer3.1,layer4.1", "--kind", "topk", "--out", trained, *QUICK],
        ["evaluate", tmp_path, "--data", photos],
        ["evaluate", trained, "--data", photos, "--labels"],
        ["show", trained, "--data", photos],
        ["show", trained, "--data", photos, "--layer", "layer3.1", "--latent", "64"],
    ):
        result = command(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_ctrl_c_keeps_the_last_checkpoint(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def interrupt(run: Run, *_: object) -> object:
        steps.append(run.step)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return advance(run, *_)

    advance = Run.advance
    arguments = ["train", "--data", photos, "-l", "layer4.1", "--out", tmp_path / "o", "--save-every", "5", *QUICK]
    monkeypatch.setattr(Run, "advance", interrupt)
    result = command(*arguments)
    assert result.exit_code == 130
    assert "the last checkpoint is in" in result.stderr
    assert command(*arguments).exit_code == 0
    assert steps == [*range(8), *range(5, 20)]


def test_costs_name_what_was_measured() -> None:
    costs = list(sae_costs(16, 64, 32, 4, rounds=1, kinds=("topk",)))
    assert [cost.peer for cost in costs] == [
        "encoder product", "encoder product + its weight gradient", "five dense products"
    ]  # fmt: skip
    assert all(cost.ratio > 0 for cost in costs)


@pytest.mark.parametrize(
    ("device", "backend", "own", "chosen"),
    [("cpu", "gloo", "cpu", []), ("cuda", "nccl", "cuda:1", ["cuda:1"]), ("cuda:3", "nccl", "cuda:3", ["cuda:3"])],
)
def test_processes_talk_by_what_the_device_needs(
    device: str, backend: str, own: str, chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the machine has a GPU does not matter to what computes on the CPU."""
    started, set_to = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", set_to.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", started.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with _processes(device) as here:
        assert (here, started, set_to) == (own, [backend], chosen)
