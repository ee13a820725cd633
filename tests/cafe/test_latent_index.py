"""The index of latents against all codes in memory, whatever the batches, killed or not."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_latents import LAYER, autoencoder, codes_by_hook, latent_layer, model, photographs, prepared

from ierf.cafe import LatentIndex, build_index
from ierf.cafe.kept import Kept, collision_entropy
from ierf.errors import IerfError, UnknownNameError


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

    def killed(batches: Any) -> Any:
        yield from list(batches)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", save_every=1, track=killed)
    assert LatentIndex.open(tmp_path / "killed").photographs == 8
    again = build(tmp_path / "killed", save_every=1)
    assert again.photographs == whole.photographs == 11
    for key, found in whole.layers.items():
        for name, tensor in found.kept.tensors().items():
            assert torch.equal(tensor, again.layers[key].kept.tensors()[name]), (key, name)


def test_the_sample_is_uniform_over_photographs_that_activate() -> None:
    kept, drawn = Kept.empty(200, 2, 5, 1), torch.zeros(20)
    generator = torch.Generator().manual_seed(0)
    active = (torch.arange(20) % 2 == 0).float()[:, None, None].expand(-1, 1, 200)
    for part in (slice(0, 7), slice(7, 20)):
        images = torch.arange(20)[part]
        keys = torch.rand(len(images), 200, generator=generator)
        kept = kept.with_more(active[part], images, keys, torch.zeros_like(images))
    drawn.index_add_(0, kept.sample_images.flatten().long(), torch.ones(1000))
    assert bool((drawn[1::2] == 0).all())
    assert bool(((drawn[::2] - 100).abs() < 40).all()), drawn


def test_collision_entropy_of_known_maps() -> None:
    maps = torch.tensor([[0.0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 0, 0], [3, 3, 3, 3]])
    torch.testing.assert_close(collision_entropy(maps), torch.tensor([0, 0, 0.5, 1]))


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
    from ierf.concepts import SAE

    with pytest.raises(IerfError, match="has 8 channels, its autoencoder 6"):
        build_index(model(), {LAYER: SAE("topk", 6, 16, 3)}, photographs(2), tmp_path)
