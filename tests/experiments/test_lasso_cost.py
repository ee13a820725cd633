"""What the cost command of the Lasso measures, without a look at the clock."""

import pytest
import torch

from ierf.experiments.concept_costs import correlated_case, lasso_costs


def test_generated_atoms_resemble_each_other_as_cluster_means_do() -> None:
    _, atoms = correlated_case(256, 2048, 1)
    unit = torch.nn.functional.normalize(atoms)
    nearest = (unit @ unit.T).fill_diagonal_(0).amax(1)
    expected = torch.tensor([0.58, 0.70, 0.81])
    torch.testing.assert_close(nearest.quantile(torch.tensor([0.1, 0.5, 0.9])), expected, atol=0.02, rtol=0)


def test_both_solve_the_same_problem() -> None:
    pytest.importorskip("sklearn")
    (cost,) = lasso_costs([(16, 128)], active=5, n=20, n_peer=8, rounds=1)
    assert cost.active == pytest.approx(5, rel=0.05)
    assert max(cost.kkt, cost.peer_kkt) <= 1.01e-3
    assert abs(cost.objective) < 1e-6
    assert min(cost.rate, cost.peer_rate, cost.floor, cost.ratio) > 0
