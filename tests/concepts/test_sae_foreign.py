"""Checkpoints of other libraries: small files in their formats, and what those libraries compute with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ierf.concepts import SAE
from ierf.errors import IerfError

C, K = 5, 12


def weights(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = weights(9, C, seed=0)
W_ENC, B_ENC, B_DEC = weights(C, K, seed=1), weights(K, seed=2), weights(C, seed=4)
W_DEC = weights(K, C, seed=3)
THRESHOLD = weights(K, seed=5).abs()


def top(pre: Tensor, k: int) -> Tensor:
    return torch.zeros_like(pre).scatter(1, pre.topk(k, 1).indices, pre.topk(k, 1).values.relu())


def saelens(folder: Path, config: dict[str, Any], **extra: Tensor) -> SAE:
    tensors = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC, **extra}
    if "r_mag" in extra:
        del tensors["b_enc"]
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": C, "d_sae": K, "dtype": "float32", **config}))
    return SAE.load(folder)


def dictionary_learning(folder: Path, name: str, state: dict[str, Tensor], **trainer: Any) -> SAE:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, **trainer}, "buffer": {}}))
    return SAE.load(folder)


def check(sae: SAE, codes: Tensor, reconstruction: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(X), codes, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sae(X), reconstruction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("subtracts", [True, False])
def test_saelens(tmp_path: Path, subtracts: bool) -> None:
    inner = (X - B_DEC if subtracts else X) @ W_ENC
    common = {"apply_b_dec_to_input": subtracts, "normalize_activations": "none"}
    codes = (inner + B_ENC).relu()
    check(saelens(tmp_path, {"architecture": "standard", **common}), codes, codes @ W_DEC + B_DEC)
    codes = top(inner + B_ENC, 3)
    check(saelens(tmp_path, {"architecture": "topk", "k": 3, **common}), codes, codes @ W_DEC + B_DEC)
    old = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, **common}
    check(saelens(tmp_path, old), codes, codes @ W_DEC + B_DEC)
    codes = (inner + B_ENC).relu() * (inner + B_ENC > THRESHOLD)
    check(saelens(tmp_path, {"architecture": "jumprelu", **common}, threshold=THRESHOLD), codes, codes @ W_DEC + B_DEC)
    b_gate, b_mag, r_mag = weights(K, seed=6), weights(K, seed=7), weights(K, seed=8)
    codes = (inner + b_gate > 0) * (inner * r_mag.exp() + b_mag).relu()
    gated = saelens(tmp_path, {"architecture": "gated", **common}, b_gate=b_gate, b_mag=b_mag, r_mag=r_mag)
    check(gated, codes, codes @ W_DEC + B_DEC)


def test_what_saelens_says_of_the_origin_is_kept(tmp_path: Path) -> None:
    sae = saelens(tmp_path, {"architecture": "standard", "metadata": {"model_name": "vit", "hook_name": "blocks.3"}})
    assert sae.about == {"format": "SAELens", "model_name": "vit", "hook_name": "blocks.3"}
    sae.save(tmp_path / "ours")
    assert torch.equal(SAE.load(tmp_path / "ours").transform(X), sae.transform(X))


def test_dictionary_learning(tmp_path: Path) -> None:
    norm = W_DEC.norm(dim=1)
    linear = {"encoder.weight": W_ENC.T.contiguous(), "decoder.weight": W_DEC.T.contiguous()}
    codes = ((X - B_DEC) @ W_ENC + B_ENC).relu()
    state = {**linear, "encoder.bias": B_ENC, "bias": B_DEC}
    check(dictionary_learning(tmp_path, "AutoEncoder", state), codes, codes @ W_DEC + B_DEC)
    codes = (X @ W_ENC + B_ENC).relu()
    state = {**linear, "encoder.bias": B_ENC, "decoder.bias": B_DEC}
    check(dictionary_learning(tmp_path, "AutoEncoderNew", state), codes, codes @ W_DEC + B_DEC)
    pre = (X - B_DEC) @ W_ENC + B_ENC
    state = {**linear, "encoder.bias": B_ENC, "b_dec": B_DEC, "k": torch.tensor(4), "threshold": torch.tensor(-1.0)}
    check(dictionary_learning(tmp_path, "AutoEncoderTopK", state), top(pre, 4), top(pre, 4) @ W_DEC + B_DEC)
    codes = pre.relu() * (pre.relu() > 0.7)
    state["threshold"] = torch.tensor(0.7)
    check(dictionary_learning(tmp_path, "BatchTopKSAE", state), codes, codes @ W_DEC + B_DEC)
    ours = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    state = {**ours, "k": torch.tensor(4), "threshold": torch.tensor(0.7), "group_sizes": torch.tensor([3, 4, 5])}
    nested = dictionary_learning(tmp_path, "MatryoshkaBatchTopKSAE", state)
    check(nested, codes, codes @ W_DEC + B_DEC)
    assert nested.config["options"] == {"prefixes": [3, 7, 12]}
    pre = X @ W_ENC + B_ENC
    codes = pre.relu() * (pre > THRESHOLD)
    with pytest.warns(UserWarning, match="decoder columns are not of norm 1; codes are .* times the norm"):
        jump = dictionary_learning(tmp_path, "JumpReluAutoEncoder", {**ours, "threshold": THRESHOLD})
    check(jump, codes * norm, codes @ W_DEC + B_DEC)
    assert f"{float(norm.min()):.3g} to {float(norm.max()):.3g}" in jump.about["codes"]
    b_gate, b_mag, r_mag = weights(K, seed=6), weights(K, seed=7), weights(K, seed=8)
    inner = (X - B_DEC) @ W_ENC
    codes = (inner + b_gate > 0) * (inner * r_mag.exp() + b_mag).relu()
    state = {**linear, "gate_bias": b_gate, "mag_bias": b_mag, "r_mag": r_mag, "decoder_bias": B_DEC}
    with pytest.warns(UserWarning, match="times the norm"):
        check(dictionary_learning(tmp_path, "GatedAutoEncoder", state), codes * norm, codes @ W_DEC + B_DEC)


@pytest.fixture
def sparsify(tmp_path: Path) -> Callable[..., SAE]:
    """An autoencoder from what sparsify would have written, with some settings and weights changed."""

    def load(changed: dict[str, Tensor] | None = None, **config: Any) -> SAE:
        tensors = {"encoder.weight": W_ENC.T.contiguous(), "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
        save_file({**tensors, **(changed or {})}, tmp_path / "sae.safetensors")
        settings = {"activation": "topk", "num_latents": K, "k": 4, "d_in": C, "multi_topk": True, **config}
        (tmp_path / "cfg.json").write_text(json.dumps(settings))
        return SAE.load(tmp_path)

    return load


def test_sparsify(sparsify: Callable[..., SAE]) -> None:
    codes = top((X - B_DEC) @ W_ENC + B_ENC, 4)
    check(sparsify(), codes, codes @ W_DEC + B_DEC)
    assert sparsify().about == {"format": "sparsify"}


@pytest.mark.parametrize(
    "settings",
    [
        {"transcode": True},
        {"skip_connection": True},
        {"signed": True},
        {"activation": "groupmax"},
        {"k": 0},
        {"d_in": 3},
    ],
)
def test_what_changes_the_codes_of_sparsify_is_refused(settings: dict[str, Any], sparsify: Callable[..., SAE]) -> None:
    with pytest.raises(IerfError, match=str(settings.get("activation", next(iter(settings))))):
        sparsify(**settings)


def test_a_weight_without_counterpart_is_refused(tmp_path: Path, sparsify: Callable[..., SAE]) -> None:
    with pytest.raises(IerfError, match="W_skip"):
        sparsify({"W_skip": torch.eye(C)})
    with pytest.raises(IerfError, match="scaling_factor"):
        saelens(tmp_path / "s", {}, scaling_factor=2 * torch.ones(K))
    assert saelens(tmp_path / "s", {}, scaling_factor=torch.ones(K)).kind == "l1"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"activation_fn_str": "tanh-relu"}, "tanh-relu"),
        ({"activation_fn": "gelu"}, "gelu"),
        ({"architecture": "jumprelu", "activation_fn": "topk"}, "topk"),
        ({"architecture": "topk"}, "does not say a k"),
        ({"architecture": "matching_pursuit"}, "matching_pursuit"),
        ({"architecture": "skip_transcoder"}, "skip_transcoder"),
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"reshape_activations": "hook_z"}, "hook_z"),
        ({"hook_head_index": 3}, "hook_head_index"),
        ({"d_sae": K + 1}, "d_sae"),
    ],
)
def test_what_changes_the_codes_of_saelens_is_refused(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(IerfError, match=named):
        saelens(tmp_path, settings, **({"threshold": THRESHOLD} if settings.get("architecture") == "jumprelu" else {}))


def test_codes_that_saelens_itself_scales_by_the_decoder(tmp_path: Path) -> None:
    norm = W_DEC.norm(dim=1)
    codes = top(((X - B_DEC) @ W_ENC + B_ENC) * norm, 3)
    with pytest.warns(UserWarning, match="not of norm 1"):
        sae = saelens(tmp_path, {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True})
    check(sae, codes, codes / norm @ W_DEC + B_DEC)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("b_dec", B_DEC[None], r"decoder bias has the shape \(\d+,\), not \(1, \d+\)"),
        ("b_enc", B_ENC[:-1], "encoder bias"),
        ("W_enc", W_ENC.T.contiguous(), "encoder has the shape"),
        ("W_dec", W_DEC[0], "decoder has the shape"),
        ("b_dec", B_DEC * torch.nan, "holds NaN"),
        ("threshold", THRESHOLD[:3], "threshold"),
    ],
)
def test_shapes_and_numbers_are_looked_at(name: str, changed: Tensor, said: str, tmp_path: Path) -> None:
    tensors = {"threshold": THRESHOLD, name: changed}
    with pytest.raises(IerfError, match=said):
        saelens(tmp_path, {"architecture": "jumprelu"}, **tensors)


def test_an_own_folder_that_is_damaged(tmp_path: Path) -> None:
    SAE("topk", C, K, 4).save(tmp_path)
    state = load_file(tmp_path / "sae.safetensors")
    save_file({**state, "encoder": state["encoder"] * torch.nan}, tmp_path / "sae.safetensors")
    with pytest.raises(IerfError, match="encoder has values that are not finite"):
        SAE.load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for damaged in ({**config, "options": 3}, {n: v for n, v in config.items() if n != "training"}):
        (tmp_path / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(IerfError, match=r"config\.json"):
            SAE.load(tmp_path)


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("this was run",)


def test_what_cannot_be_read_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IerfError, match="normalises activations"):
        saelens(tmp_path, {"architecture": "standard", "normalize_activations": "layer_norm"})
    with pytest.raises(IerfError, match="transcoder"):
        saelens(tmp_path, {"architecture": "transcoder"})
    with pytest.raises(IerfError, match="no complete checkpoint"):
        saelens(tmp_path, {"architecture": "gated"})
    with pytest.raises(IerfError, match="CrossCoder"):
        dictionary_learning(tmp_path / "d", "CrossCoder", {})
    with pytest.raises(IerfError, match=r"has no 'encoder\.weight'"):
        dictionary_learning(tmp_path / "d", "AutoEncoder", {})
    with pytest.raises(IerfError, match="more than tensors"):
        dictionary_learning(tmp_path / "d", "AutoEncoder", {"a": Harmful()})  # type: ignore[dict-item]
    assert "this was run" not in capsys.readouterr().out
