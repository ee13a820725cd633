"""Is an edge stronger than that of a concept drawn at random?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

DRAWS = 200


def random_concepts(atoms: Float[Tensor, "K C"], draws: int = DRAWS, seed: int = 0) -> Float[Tensor, "R C"]:
    """Unit vectors along `draws` atoms of the dictionary, drawn with replacement, each with a random sign.

    Directions of the data, not of the whole space: against uniformly random directions almost any concept looks
    special, as all concepts of a layer share a few directions.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(atoms), (draws,), generator=generator).to(atoms.device)
    signs = torch.randint(2, (draws, 1), generator=generator).to(atoms) * 2 - 1
    return signs * torch.nn.functional.normalize(atoms[drawn], dim=1)


def p_values(
    values: Float[Tensor, "Q T"], sensitivity: Float[Tensor, "Q T C"], norms: Float[Tensor, " Q"], random: Tensor
) -> Float[Tensor, "Q T"]:
    """For each edge `(1 + #{r : |h · r̂_r ‖v_q‖| ≥ |value|}) / (1 + R)`, with the random unit vectors `r̂` (R, C).

    `sensitivity` is `h_qt = Σ_p u_pq ∫ ∂S_t/∂X̂_p dα`, so `value = ⟨h_qt, v_q⟩`: the null puts another concept of the
    same norm in the place of `v_q`, with the same coefficients at the same positions, and leaves the path as it is.
    """
    drawn = (sensitivity @ random.to(sensitivity).T).abs() * norms.to(sensitivity)[:, None, None]
    reached: Int[Tensor, "Q T"] = (drawn >= values.abs()[..., None]).sum(-1)
    return (1 + reached) / (1 + len(random))
