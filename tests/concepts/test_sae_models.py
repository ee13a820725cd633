"""The autoencoders as extractors: codes, files, norms, what they find."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ierf.concepts import EXTRACTORS, SAE, make_extractor
from ierf.concepts.sae import Training
from ierf.concepts.sae.variants import RULES
from ierf.errors import IerfError, UnknownNameError

SHORT = Training(samples=3000, batch=100, buffer=500)
KINDS = [(kind, {}) for kind in RULES] + [("l1", {"form": "gig"}), ("matryoshka", {"prefixes": "random"})]


def sparse_data(n: int = 4000, atoms: int = 24, channels: int = 12, active: int = 2) -> tuple[Tensor, Tensor]:
    """PFVs that are sums of two of 24 directions, far from the origin; and the directions."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(atoms, channels, generator=generator))
    chosen = torch.rand(n, atoms, generator=generator).topk(active, 1).indices
    codes = torch.zeros(n, atoms).scatter(1, chosen, 0.5 + torch.rand(n, active, generator=generator))
    return 30 * codes @ directions + 50 * torch.randn(channels, generator=generator), directions


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_files_keep_every_bit(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    x, _ = sparse_data(500)
    sae = SAE(kind, n_latents=32, k=2, seed=3, training=SHORT, **options).fit(x)  # type: ignore[arg-type]
    sae.about = {"layer": "layer3"}
    sae.save(tmp_path / "s")
    loaded = SAE.load(tmp_path / "s")
    assert sorted(loaded.state_dict()) == sorted(sae.state_dict())
    for name, tensor in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded.transform(x), sae.transform(x))
    assert loaded.config == sae.config
    assert json.loads(json.dumps(sae.config)) == sae.config
    if kind in ("batchtopk", "matryoshka"):
        assert float(loaded.get_buffer("rule.threshold")) > 0
    if kind == "jumprelu":
        assert len(set(loaded.get_parameter("rule.log_threshold").tolist())) > 1


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_an_extractor_like_the_others(kind: str, options: dict[str, object]) -> None:
    x, _ = sparse_data(500)
    sae = make_extractor(f"sae_{kind}", 32, seed=1, k=2, training={"samples": 3000, "batch": 100}, **options)
    assert isinstance(sae, SAE)
    codes = sae.fit(x.numpy().astype(np.float16)).transform(x.numpy())
    assert codes.shape == (500, 32)
    assert codes.dtype == torch.float32
    assert bool((codes >= 0).all())
    with torch.no_grad():
        torch.testing.assert_close(codes @ sae.components_ + sae.shift_, sae(x))
    assert torch.equal(sae.transform(x[7:8]), codes[7:8]) or torch.allclose(sae.transform(x[7:8]), codes[7:8], 1e-4)
    norms = sae.components_.norm(dim=1)
    if options.get("form") == "gig":
        assert float((norms - 1).abs().max()) > 1e-3
    else:
        torch.testing.assert_close(norms, torch.ones(32))


def test_all_kinds_are_extractors() -> None:
    assert {f"sae_{kind}" for kind in RULES} <= EXTRACTORS.keys()


FOUND = [
    ("topk", {}, 0.1),
    ("batchtopk", {}, 0.15),
    ("matryoshka", {}, 0.2),
    ("jumprelu", {}, 0.2),
    ("gated", {"lam": 0.2}, 0.1),
    ("l1", {"lam": 0.1}, 0.1),
    ("l1", {"lam": 0.1, "form": "gig"}, 0.15),
]
"""Kind, options, and what share of the variance is left unexplained at most."""


@pytest.mark.parametrize(("kind", "options", "share"), FOUND)
def test_known_directions_are_found(kind: str, options: dict[str, object], share: float) -> None:
    x, directions = sparse_data()
    training = Training(samples=50_000, batch=200, lr=1e-2, buffer=8000)
    sae = SAE(kind, 12, 48, k=2, training=training, **options).fit(x)  # type: ignore[arg-type]
    with torch.no_grad():
        unexplained = float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum())
    assert unexplained < share
    nearest = (directions @ normalize(sae.components_).T).amax(1)
    assert float(nearest.median()) > 0.93, nearest
    if kind in ("batchtopk", "matryoshka"):
        assert float((sae.transform(x) > 0).float().sum(1).mean()) == pytest.approx(2, abs=0.3)


def test_the_scale_of_the_data_changes_nothing() -> None:
    x, _ = sparse_data(500)
    one, other = (SAE("batchtopk", n_latents=32, k=2, training=SHORT).fit(scale * x) for scale in (1, 1024))
    torch.testing.assert_close(other.components_, one.components_, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.transform(1024 * x), 1024 * one.transform(x), rtol=1e-2, atol=1)


def test_the_gradient_along_decoder_columns_is_taken_out() -> None:
    sae = SAE("topk", 12, 32, k=2)
    sae.decoder.grad = torch.randn(32, 12, generator=torch.Generator().manual_seed(1))
    before = sae.decoder.grad.clone()
    sae.before_step()
    torch.testing.assert_close((sae.decoder.grad * sae.decoder).sum(1), torch.zeros(32), atol=1e-6, rtol=0)
    along = (before - sae.decoder.grad) / sae.decoder
    torch.testing.assert_close(along, along[:, :1].expand(-1, 12), rtol=1e-3, atol=1e-4)
    free = SAE("l1", 12, 32, form="gig")
    free.decoder.grad = before.clone()
    free.before_step()
    assert torch.equal(free.decoder.grad, before)


def test_pre_activations_have_gradients_and_become_codes() -> None:
    x, _ = sparse_data(50)
    sae = SAE("topk", n_latents=32, k=2, training=SHORT).fit(x)
    pixels = x.clone().requires_grad_()
    pre = sae.pre_activations(pixels)
    codes = sae.transform(x)
    torch.testing.assert_close(pre[codes > 0].detach(), codes[codes > 0])
    slope = torch.autograd.grad(pre[:, 5].sum(), pixels)[0]
    torch.testing.assert_close(slope, sae.encoder[5].detach().expand_as(slope))


def test_float64_stays() -> None:
    x, _ = sparse_data(200)
    sae = SAE("matryoshka", n_latents=16, k=2, training=SHORT).fit(x.double())
    assert sae.transform(x.double()).dtype == sae.components_.dtype == torch.float64


def test_a_shift_is_where_the_bias_begins() -> None:
    x, _ = sparse_data(200)
    shift = torch.arange(12.0)
    one = SAE("topk", 12, 16, 2, shift=shift)
    one.begin(x)
    torch.testing.assert_close(one.shift_, shift)
    other = SAE("topk", 12, 16, 2, shift="mean")
    other.begin(x)
    torch.testing.assert_close(other.shift_, x.mean(0))
    assert float((x * other.scale).square().mean()) == pytest.approx(1, rel=1e-4)


def test_mistakes_are_explained(tmp_path: Path) -> None:
    for wrong in (
        lambda: SAE("topk", 12, 16, k=17),
        lambda: SAE("topk", 12, 0),
        lambda: SAE("matryoshka", 12, 16, 2, prefixes=[4, 8]),
        lambda: SAE("matryoshka", 12, 16, 2, weights=[1, 1]),
        lambda: SAE("topk", n_latents=4, k=1).transform(torch.ones(2, 3)),
        lambda: SAE("topk", 5, 4, k=1).fit(torch.ones(2, 3)),
        lambda: SAE("topk", 5, 4, k=1).transform(torch.ones(2, 3)),
        lambda: SAE("topk", 3, 4, k=1).fit(torch.full((2, 3), torch.nan)),
        lambda: SAE("topk", 3, 4, k=1, training=Training(lr=-1)),
        lambda: SAE.load(tmp_path / "nothing"),
        lambda: SAE.load(tmp_path),
    ):
        with pytest.raises(IerfError):
            wrong()
    with pytest.raises(UnknownNameError, match="topk"):
        SAE("topkk", 12, 16)
    with pytest.raises(UnknownNameError, match="prefixes"):
        SAE("matryoshka", 12, 16, 2, prefix=[16])
    x, _ = sparse_data(200)
    SAE("topk", n_latents=16, k=2, training=SHORT).fit(x).save(tmp_path / "s")
    file = tmp_path / "s/sae.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(IerfError, match="does not fit"):
        SAE.load(tmp_path / "s")
