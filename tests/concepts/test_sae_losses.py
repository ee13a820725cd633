"""Every loss of the autoencoders, and its gradient, against numbers worked out by hand and dense implementations."""

import pytest
import torch
from torch import Tensor

from ierf.concepts.sae import SAE
from ierf.concepts.sae.losses import (
    SparseCodes,
    auxk,
    encoded,
    l1,
    mean_squared_error,
    nested,
    unexplained,
    variance,
    weighted_l1,
)
from ierf.concepts.sae.rule import Stage, largest
from ierf.concepts.sae.variants import jump_relu, steps_above

X = torch.tensor([[1.0, 2.0], [3.0, -2.0]], dtype=torch.float64)
NOBODY = torch.zeros(6, dtype=torch.bool)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(of: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(of, by, retain_graph=True)[0]


def small(kind: str, k: int = 2, **options: object) -> SAE:
    """Six latents of three channels with biases that are not zero."""
    sae = SAE(kind, 3, 6, k, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        sae.encoder.add_(0.1 * random(6, 3, seed=1))
        if sae.rule.encoder_bias:
            sae.encoder_bias.copy_(0.3 * random(6, seed=2))
        sae.decoder_bias.copy_(random(3, seed=3))
    return sae


def test_squared_error_and_l1_by_hand() -> None:
    x_hat = torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = mean_squared_error(X, x_hat)
    assert loss.item() == (1 + 4) / 2
    assert gradient(loss, x_hat).tolist() == [[-1.0, 0.0], [0.0, 2.0]]
    codes = torch.tensor([[1.0, 0.0, 2.0], [0.0, 4.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert l1(codes).item() == 3.5
    assert gradient(l1(codes), codes)[0].tolist() == [0.5, 0.0, 0.5]
    decoder = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    penalty = weighted_l1(codes, decoder)
    assert penalty.item() == (1 * 5 + 2 * 1 + 4 * 2) / 2
    torch.testing.assert_close(gradient(penalty, codes)[1], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    expected = torch.tensor([[0.5 * 0.6, 0.5 * 0.8], [0.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient(penalty, decoder), expected)


def test_unexplained_variance_by_hand() -> None:
    assert variance(X).item() == 2 * (1 + 4)
    x_hat = torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert unexplained(X, x_hat).item() == 0.5
    assert gradient(unexplained(X, x_hat), x_hat).tolist() == [[-0.2, 0.0], [0.0, 0.4]]
    assert unexplained(X, X.mean(0)).item() == 1
    same = torch.ones(4, 3)
    assert unexplained(same, same).item() == 0


def test_auxk_by_hand() -> None:
    x_hat = torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    pre = torch.tensor([[0.5, 2.0, -1.0], [-3.0, -2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    decoder = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss = auxk(X, x_hat, pre, decoder, k_aux=1)
    # e = [[1, 0], [0, −2]], ē = [½, −1], Σ‖e − ē‖² = 2.5; ê = [[2, 0], [0, 0]]: the best of the second row is negative.
    assert loss.item() == pytest.approx((1 + 4) / 2.5)
    assert gradient(loss, pre).tolist() == [[0.0, 2 * 1 / 2.5, 0.0], [0.0, 0.0, 0.0]]
    assert gradient(loss, decoder).tolist() == [[0.0, 0.0], [2 * 2 / 2.5, 0.0], [0.0, 0.0]]
    with pytest.raises(RuntimeError, match="not have been used"):
        gradient(loss, x_hat)


def test_auxk_does_not_depend_on_scale_or_bias() -> None:
    x, x_hat, pre, decoder = random(5, 4), random(5, 4, seed=1), random(5, 7, seed=2), random(7, 4, seed=3)
    loss = auxk(x, x_hat, pre, decoder, 3)
    torch.testing.assert_close(auxk(10 * x, 10 * x_hat, 10 * pre, decoder, 3), loss)
    bias = random(4, seed=4)
    torch.testing.assert_close(auxk(x + bias, x_hat + bias, pre, decoder, 3), loss)


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka"])
def test_auxk_reaches_the_encoder_of_dead_latents_alone(kind: str) -> None:
    sae, x = small(kind, k=1), random(40, 3, seed=5)
    dead = torch.tensor([False, False, True, False, True, False])
    with_aux = sae.objective(x, Stage(0, 1.0, dead)).loss
    without = sae.objective(x, Stage(0, 1.0, NOBODY)).loss
    difference = gradient(with_aux, sae.encoder) - gradient(without, sae.encoder)
    assert bool((difference[dead].abs().sum(1) > 1e-4).all())
    assert float(difference[~dead].abs().max()) < 1e-12
    assert with_aux.item() > without.item()
    # The residual is a constant: AuxK moves the decoder's bias only as what is subtracted from the input.
    bias = gradient(with_aux, sae.decoder_bias) - gradient(without, sae.decoder_bias)
    torch.testing.assert_close(
        bias, -(gradient(with_aux, sae.encoder_bias) - gradient(without, sae.encoder_bias)) @ sae.encoder.detach()
    )


def dense_topk(sae: SAE, x: Tensor, chosen: Tensor) -> Tensor:
    """FVU of a TopK autoencoder by dense products with autograd alone."""
    pre = (x - sae.decoder_bias) @ sae.encoder.T + sae.encoder_bias
    x_hat = (pre * chosen).relu() @ sae.decoder + sae.decoder_bias
    return ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_sparse_gradients_are_those_of_dense_products(kind: str) -> None:
    sae, x = small(kind), random(30, 3, seed=6)
    pre = ((x - sae.decoder_bias) @ sae.encoder.T + sae.encoder_bias).detach()
    if kind == "topk":
        chosen = torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(2, 1).indices, True)
    else:
        chosen = pre >= pre.flatten().sort(descending=True).values[2 * 30 - 1]
        assert len(set(chosen.sum(1).tolist())) > 1
    found, expected = sae.objective(x, Stage(0, 1.0, NOBODY)), dense_topk(sae, x, chosen)
    torch.testing.assert_close(found.loss, expected)
    for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
        parameter = sae.get_parameter(name)
        torch.testing.assert_close(gradient(found.loss, parameter), gradient(expected, parameter), msg=name)
    assert found.counts.tolist() == (chosen & (pre > 0)).sum(0).tolist()


def test_sparse_codes_are_dense_ones_without_zeros() -> None:
    dense = random(7, 5).relu()
    dense[2] = 0
    codes = SparseCodes.of_mask(dense > 0, dense)
    decoder = random(5, 3, seed=1)
    assert torch.equal(codes.dense(), dense)
    torch.testing.assert_close(codes.decode(decoder), dense @ decoder)
    torch.testing.assert_close(codes.between(1, 4).decode(decoder), dense[:, 1:4] @ decoder[1:4])
    assert codes.counts().tolist() == (dense > 0).sum(0).tolist()
    weights, bias, x = random(5, 4, seed=2).requires_grad_(), random(5, seed=3).requires_grad_(), random(7, 4, seed=4)
    pre = x @ weights.T + bias
    values = encoded(SparseCodes.of_mask(dense > 0, pre.detach()), x, weights, bias)
    cotangent = random(len(values.values), seed=5)
    for parameter in (weights, bias):
        expected = gradient((pre[dense > 0] * cotangent).sum(), parameter)
        torch.testing.assert_close(gradient((values.values * cotangent).sum(), parameter), expected)


def test_the_smallest_kept_value_is_exact_whatever_the_guess() -> None:
    pre = random(50, 20)
    expected = pre.flatten().sort(descending=True).values[99]
    for guess in (-5.0, 0.0, float(expected), 10.0):
        assert largest(pre, 100, guess) == expected


def test_nested_reconstructions_by_dense_products() -> None:
    x, dense, decoder, bias = random(9, 4), random(9, 6, seed=1).relu(), random(6, 4, seed=2), random(4, seed=3)
    loss, x_hat = nested(x, SparseCodes.of_mask(dense > 0, dense), decoder, bias, [1, 3, 6], [0.5, 0.25, 0.25])
    parts = [unexplained(x, dense[:, :m] @ decoder[:m] + bias) for m in (1, 3, 6)]
    torch.testing.assert_close(loss, 0.5 * parts[0] + 0.25 * parts[1] + 0.25 * parts[2])
    torch.testing.assert_close(x_hat, dense @ decoder + bias)


def test_matryoshka_prefixes_and_weights() -> None:
    sae = SAE("matryoshka", 4, 64, 2, weights=[4, 2, 1, 1, 0])
    assert sae.rule.fixed == [4, 8, 16, 32, 64]
    assert sae.rule.shares == [0.5, 0.25, 0.125, 0.125, 0.0]
    drawn = SAE("matryoshka", 4, 64, 2, prefixes="random", seed=3)
    ends = [drawn.rule.prefixes(step) for step in range(50)]
    assert all(sorted(one) == one and one[-1] == 64 and one[0] >= 1 for one in ends)
    assert len({tuple(one) for one in ends}) > 40
    assert ends[7] == SAE("matryoshka", 4, 64, 2, prefixes="random", seed=3).rule.prefixes(7)
    assert sum(drawn.rule.shares) == pytest.approx(1)


def test_jump_relu_and_its_estimators_by_hand() -> None:
    pre = torch.tensor([[0.2, 0.9], [1.1, 3.0], [0.6, 1.04]], dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    cotangent = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    codes = jump_relu(pre, threshold, bandwidth=0.4)
    assert codes.tolist() == [[0.0, 0.0], [1.1, 3.0], [0.6, 1.04]]
    assert gradient((codes * cotangent).sum(), pre).tolist() == [[0.0, 0.0], [3.0, 4.0], [5.0, 6.0]]
    # |π − θ| < 0.2 holds for 0.6 of the first latent, for 0.9 and 1.04 of the second.
    expected = torch.tensor([-0.5 / 0.4 * 5, -1.0 / 0.4 * (2 + 6)], dtype=torch.float64)
    torch.testing.assert_close(gradient((codes * cotangent).sum(), threshold), expected)
    steps = steps_above(pre, threshold, bandwidth=0.4)
    assert steps.tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    expected = torch.tensor([-5 / 0.4, -(2 + 6) / 0.4], dtype=torch.float64)
    torch.testing.assert_close(gradient((steps * cotangent).sum(), threshold), expected)


def test_the_jump_relu_loss_by_hand() -> None:
    sae, x = small("jumprelu", k=2, lam=0.7), random(30, 3, seed=6)
    sae.get_parameter("rule.log_threshold").data.fill_(-0.5)
    pre = x @ sae.encoder.T + sae.encoder_bias
    active = pre > torch.tensor(-0.5).double().exp()
    x_hat = pre * active @ sae.decoder + sae.decoder_bias
    l0 = active.double().sum() / 30
    expected = unexplained(x, x_hat) + 0.5 * 0.7 * (l0 / 2 - 1) ** 2
    torch.testing.assert_close(sae.objective(x, Stage(0, 0.5, NOBODY)).loss, expected)


def test_thresholds_begin_where_k_latents_are_active() -> None:
    sae, x = SAE("jumprelu", 3, 50, 4).double(), 7 + random(200, 3)
    sae.begin(x)
    assert float((sae.encode(x) > 0).double().sum(1).mean()) == pytest.approx(4, abs=0.02)


def test_the_gated_loss_by_hand() -> None:
    sae, x = small("gated", lam=0.3), random(30, 3, seed=7)
    gain, shift = sae.get_parameter("rule.log_gain"), sae.get_parameter("rule.magnitude_bias")
    gain.data.copy_(0.2 * random(6, seed=8))
    shift.data.copy_(0.2 * random(6, seed=9))
    inner = (x - sae.decoder_bias) @ sae.encoder.T
    gates = inner + sae.encoder_bias
    codes = (gates > 0) * (gain.exp() * inner + shift).relu()
    x_hat = codes @ sae.decoder + sae.decoder_bias
    frozen = gates.relu() @ sae.decoder.detach() + sae.decoder_bias.detach()
    errors = [((x - other) ** 2).sum() / 30 for other in (x_hat, frozen)]
    expected = errors[0] + 0.3 * gates.relu().sum() / 30 + errors[1]
    found = sae.objective(x, Stage(0, 1.0, NOBODY)).loss
    torch.testing.assert_close(found, expected)
    for parameter in sae.parameters():
        torch.testing.assert_close(gradient(found, parameter), gradient(expected, parameter))
    torch.testing.assert_close(gradient(found, sae.decoder), gradient(errors[0], sae.decoder))


@pytest.mark.parametrize("form", ["ierf", "gig"])
def test_both_l1_losses_by_hand(form: str) -> None:
    sae, x = small("l1", lam=0.4, form=form), random(30, 3, seed=10)
    if form == "ierf":
        sae.get_parameter("input_bias").data.copy_(random(3, seed=11))
        codes = ((x - sae.get_parameter("input_bias")) @ sae.encoder.T).relu()
        penalty = codes.sum() / 30
    else:
        sae.decoder.data.mul_(2)
        codes = (x @ sae.encoder.T + sae.encoder_bias).relu()
        penalty = (codes * sae.decoder.norm(dim=1)).sum() / 30
    expected = ((x - codes @ sae.decoder - sae.decoder_bias) ** 2).sum() / 30 + 0.4 * penalty
    found = sae.objective(x, Stage(0, 1.0, NOBODY)).loss
    torch.testing.assert_close(found, expected)
    for parameter in (p for p in sae.parameters() if p.requires_grad):
        torch.testing.assert_close(gradient(found, parameter), gradient(expected, parameter))
