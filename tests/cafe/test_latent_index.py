"""The index of latents against all codes in memory, whatever the batches, killed or not."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.damage import silent
from support.transformers import LAYER, autoencoder, codes_by_hook, latent_layer, model, photographs, prepared

from ierf.cafe import LatentIndex, build_index
from ierf.cafe.top_examples import TopExamples, collision_entropy, max_activations, numbered, of_codes
from ierf.concepts import SAE
from ierf.concepts.sae.variants import RULES
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import costs
from ierf.model import capture
from ierf.store.photographs import open_images

PARTS = [slice(1, 10), slice(0, 1)]


def trained(kind: str) -> SAE:
    """Weights of every part away from zero, as if it had been trained."""
    sae = SAE(kind, 8, 16, 3)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        sae.scale.fill_(0.7)
        for buffer in sae.rule.buffers():
            buffer.fill_(0.3)
    return sae


def build(folder: Path, count: int = 11, **options: Any) -> LatentIndex:
    return build_index(model(), {LAYER: autoencoder()}, photographs(count), folder, **{"batch": 4, **options})


def test_top_activations_are_those_of_all_codes_in_memory(tmp_path: Path) -> None:
    index, layer = build(tmp_path, top=3), latent_layer()
    codes = codes_by_hook(layer, prepared(layer, photographs()))
    for kind, of_kind, shift in (("patch", codes[:, 1:10], 1), ("class", codes[:, :1], 0)):
        peaks, places = of_kind.max(1)
        found = index.layer(LAYER, kind)  # type: ignore[arg-type]
        for latent in range(16):
            active = [i for i in peaks[:, latent].argsort(descending=True).tolist() if peaks[i, latent] > 0]
            expected = [(i, int(places[i, latent]) + shift, float(peaks[i, latent])) for i in active[:3]]
            top = found.top(latent)
            assert [example[:2] for example in top] == [one[:2] for one in expected]
            assert [e.activation for e in top] == pytest.approx([one[2] for one in expected], rel=1e-5)
        torch.testing.assert_close(found.frequency, (peaks > 0).double().mean(0))
        torch.testing.assert_close(found.kept.total, peaks.double().sum(0), rtol=1e-5, atol=1e-6)


def test_a_sample_that_holds_all_has_their_quantiles_and_entropies(tmp_path: Path) -> None:
    index, layer = build(tmp_path, sample=11), latent_layer()
    codes = codes_by_hook(layer, prepared(layer, photographs()))[:, 1:10].double()
    peaks = codes.amax(1)
    latent = int((peaks > 0).sum(0).argmax())
    active = peaks[:, latent] > 0
    ordered = peaks[active, latent].sort().values.tolist()
    found = index.layer(LAYER)
    everything = [example.activation for example in found.quantiles(latent, 11)]
    assert everything == pytest.approx(ordered, rel=1e-5)
    middle = found.quantiles(latent, 1)[0].activation
    assert middle == pytest.approx(ordered[len(ordered) // 2], rel=1e-5)
    maps = codes[active, :, latent]
    shares = maps / maps.sum(1, keepdim=True)
    expected = (-shares.square().sum(1).log() / math.log(9)).mean()
    assert float(found.entropy[latent]) == pytest.approx(float(expected), rel=1e-4)


def test_classes_are_those_that_the_network_predicts(tmp_path: Path) -> None:
    index, layer = build(tmp_path), latent_layer()
    x = prepared(layer, photographs())
    predicted = layer.model.net(x).argmax(1)
    peaks = codes_by_hook(layer, x)[:, 1:10].amax(1).double()
    found = index.layer(LAYER)
    latent = int(peaks.sum(0).argmax())
    share = {c: float(peaks[predicted == c, latent].sum() / peaks[:, latent].sum()) for c in range(5)}
    assert dict(found.classes(latent, 5)) == pytest.approx({c: s for c, s in share.items() if s > 0}, rel=1e-5)
    assert float(found.selectivity[latent]) == pytest.approx(max(share.values()), rel=1e-5)


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", save_every=1)

    def killed(stage: str, done: int, total: int) -> None:
        assert (stage, total) == ("indexing", 11)
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", save_every=1, progress=killed)
    assert LatentIndex.open(tmp_path / "killed").photographs == 8
    again = build(tmp_path / "killed", save_every=1)
    assert again.photographs == whole.photographs == 11
    for key, found in whole.layers.items():
        for name, tensor in found.kept.tensors().items():
            assert torch.equal(tensor, again.layers[key].kept.tensors()[name]), (key, name)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("fault", [1, 2, 3, 5, 7, 8, 11])
def test_a_run_killed_at_any_write_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    """Files are put in place by `os.replace`: what is killed just before or behind the n-th of them is resumed."""
    build(tmp_path / "whole", save_every=1)
    replace, count = os.replace, 0

    def dying(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count == fault and fault % 2:
            raise KeyboardInterrupt
        replace(source, target)
        if count == fault:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        try:
            build(tmp_path / "killed", save_every=1)
        except KeyboardInterrupt:
            assert count == fault
    build(tmp_path / "killed", save_every=1)
    assert folder_bytes(tmp_path / "killed") == folder_bytes(tmp_path / "whole")


def test_a_process_that_is_killed_and_resumed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Each process has its own order of hashes, in which nothing may be written."""
    here = Path(__file__).parent
    program = (
        "import sys, time, torch; torch.set_num_threads(1)\n"
        f"sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        "from test_latent_index import build\n"
        "from pathlib import Path\n"
        "slow = float(sys.argv[2])\n"
        "def told(stage, done, total):\n"
        "    print('saved', flush=True)\n"
        "    time.sleep(slow)\n"
        "build(Path(sys.argv[1]), save_every=1, batch=1, progress=told)\n"
    )

    def begun(folder: str, slow: float) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / folder), str(slow)], stdout=subprocess.PIPE, text=True
        )

    with begun("killed", 0.5) as running:
        assert running.stdout is not None
        for _ in range(4):
            assert running.stdout.readline() == "saved\n"
        running.kill()
    for folder in ("killed", "whole"):
        with begun(folder, 0) as running:
            said = running.communicate(timeout=60)[0]
        assert running.returncode == 0
        assert len(said.splitlines()) == (7 if folder == "killed" else 11)
    assert folder_bytes(tmp_path / "killed") == folder_bytes(tmp_path / "whole")


def test_the_sample_is_uniform_over_photographs_that_activate() -> None:
    kept, drawn = TopExamples.empty(200, 2, 5, 1), torch.zeros(20)
    generator = torch.Generator().manual_seed(0)
    active = (torch.arange(20) % 2 == 0).float()[:, None, None].expand(-1, 1, 200)
    for part in (slice(0, 7), slice(7, 20)):
        images = torch.arange(20)[part]
        keys = torch.rand(len(images), 200, generator=generator)
        kept = kept.with_more(of_codes(active[part]), images, keys, torch.zeros_like(images))
    drawn.index_add_(0, kept.sample_images.flatten().long(), torch.ones(1000))
    assert bool((drawn[1::2] == 0).all())
    assert bool(((drawn[::2] - 100).abs() < 40).all()), drawn


def test_collision_entropy_of_known_maps() -> None:
    maps = torch.tensor([[0.0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 0, 0], [3, 3, 3, 3]])
    torch.testing.assert_close(collision_entropy(maps), torch.tensor([0, 0, 0.5, 1]))


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peaks_bound_all_codes_and_maps_are_exact(kind: str, dtype: Any) -> None:
    layer = latent_layer()
    sae = trained(kind)
    pfvs = capture(layer.model, prepared(layer, photographs()), [LAYER])[LAYER].pfvs.detach()
    codes = sae.encode(pfvs.flatten(0, 1)).detach().view(11, 10, 16)
    for part, found in zip(PARTS, max_activations(sae, pfvs, PARTS, dtype), strict=True):
        expected = codes[:, part].amax(1)
        exact = not (dtype == "bfloat16" and sae.rule.pointwise)
        torch.testing.assert_close(found.values, expected, rtol=1e-4 if exact else 0.5, atol=1e-4 if exact else 0.2)
        assert bool((found.bounds >= expected - 1e-6).all())
        samples, latents = torch.ones_like(expected).nonzero(as_tuple=True)
        torch.testing.assert_close(
            found.maps(samples, latents), codes[:, part].transpose(1, 2).flatten(0, 1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["l1", "batchtopk", "jumprelu", "gated", "matryoshka"])
def test_rounded_products_keep_the_same_photographs(tmp_path: Path, kind: str) -> None:
    saes, count = {LAYER: trained(kind)}, photographs(11)
    exact = build_index(model(), saes, count, tmp_path / "exact", top=3, batch=4)
    rounded = build_index(model(), saes, count, tmp_path / "rounded", top=3, batch=4, dtype="bfloat16")
    assert not torch.equal(exact.layer(LAYER).kept.total, rounded.layer(LAYER).kept.total)
    for key, found in exact.layers.items():
        other = rounded.layers[key]
        for latent in range(16):
            assert [e[:2] for e in other.top(latent)] == [e[:2] for e in found.top(latent)]
            assert [e[:2] for e in other.quantiles(latent)] == [e[:2] for e in found.quantiles(latent)]
        torch.testing.assert_close(other.kept.top, found.kept.top)


def test_numbers_within_groups() -> None:
    assert numbered(torch.tensor([5, 7, 5, 5, 7, 2])).tolist() == [0, 0, 1, 2, 1, 0]


def test_an_autoencoder_of_another_model_is_refused(tmp_path: Path) -> None:
    sae = autoencoder()
    sae.about = {"model": "elsewhere", "weights": "0", "layer": LAYER}
    with pytest.raises(IerfError, match="was trained on elsewhere"):
        build_index(model(), {LAYER: sae}, photographs(2), tmp_path)


def test_an_autoencoder_that_knows_the_models_name_alone_is_refused_too(tmp_path: Path) -> None:
    sae = autoencoder()
    sae.about = {"model": "elsewhere"}
    with pytest.raises(IerfError, match="was trained on elsewhere"):
        build_index(model(), {LAYER: sae}, photographs(2), tmp_path)


def test_an_autoencoder_in_float64_gives_the_same_index(tmp_path: Path) -> None:
    usual = build_index(model(), {LAYER: trained("l1")}, photographs(), tmp_path / "float32", batch=4)
    double = build_index(model(), {LAYER: trained("l1").double()}, photographs(), tmp_path / "float64", batch=4)
    for key, found in usual.layers.items():
        assert torch.equal(double.layers[key].kept.top_images, found.kept.top_images)
        torch.testing.assert_close(double.layers[key].kept.top, found.kept.top)


def test_an_index_of_another_version_is_named(tmp_path: Path) -> None:
    build(tmp_path)
    settings = tmp_path / "index.json"
    settings.write_text(settings.read_text().replace('"version": 2', '"version": 1'))
    for again in (lambda: LatentIndex.open(tmp_path), lambda: build(tmp_path)):
        with pytest.raises(IerfError, match="not that of an index of version 2"):
            again()


def test_other_settings_are_refused(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(IerfError, match=r"other settings \(count, top\)|other settings \(images, count, top\)"):
        build(tmp_path, 9, top=2)


def test_an_index_that_is_missing_or_asked_for_another_layer_says_so(tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="no index of latents"):
        LatentIndex.open(tmp_path)
    with pytest.raises(UnknownNameError, match=r"blocks\.2 patch"):
        build(tmp_path).layer("blocks.2")


def test_an_autoencoder_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="has 8 channels, its autoencoder 6"):
        build_index(model(), {LAYER: SAE("topk", 6, 16, 3)}, photographs(2), tmp_path)


def test_the_cost_of_an_index_is_that_of_all_its_timed_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 4.0, 3.0, 3.0, 4.0, 5.0])

    def timed(work: Any) -> float:
        work()
        return next(seconds)

    monkeypatch.setattr(costs, "seconds_of", timed)
    found = costs.index_costs(model(), [latent_layer()], open_images(photographs()), batch=1)
    assert [(cost.ratio, cost.lowest) for cost in found] == [(2.0, pytest.approx(4 / 3)), (2.0, pytest.approx(5 / 3))]
    assert [cost.what.split(", ")[1:] for cost in found] == [
        ["11 photographs", "float32"],
        ["11 photographs", "bfloat16"],
    ]


def test_photographs_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, photo in enumerate(photographs(5)):
        photo.save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"no picture")
    some = build_index(model(), {LAYER: autoencoder()}, folder, tmp_path / "index", batch=2)
    readable = [photo for number, photo in enumerate(photographs(5)) if number != 2]
    all_of_them = build_index(model(), {LAYER: autoencoder()}, readable, tmp_path / "readable", batch=2)
    assert some.photographs == 4
    assert torch.equal(some.layer(LAYER).frequency, all_of_them.layer(LAYER).frequency)


def test_a_damaged_index_is_a_sentence(tmp_path: Path) -> None:
    build(tmp_path / "index", count=5)

    def read(folder: Path) -> list[Any]:
        index = LatentIndex.open(folder)
        tops = [(key, [layer.top(latent) for latent in range(16)]) for key, layer in index.layers.items()]
        return [
            index.photographs,
            tops,
            {name: t.tolist() for _, one in index.layers.items() for name, t in one.kept.tensors().items()},
        ]

    found, refused = silent(tmp_path / "index", read)
    assert not found, "\n".join(found)
    assert refused > 50
    path = tmp_path / "index" / "index.safetensors"
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    for change, said in (
        (lambda t: t * math.nan, "not finite"),
        (lambda t: t[:, :1].contiguous(), "not as the others"),
    ):
        key = f"{LAYER}/patch/sample_entropy"
        save_file({**tensors, key: change(tensors[key])}, path, metadata)
        with pytest.raises(IerfError, match=rf"index.safetensors.*sample_entropy of {LAYER} patch.*{said}"):
            LatentIndex.open(tmp_path / "index")
