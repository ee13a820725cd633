"""Random networks: recorded as they are, accounted for, alike in every spelling, and as the formulas say.

`python scripts/fuzz_networks.py` tries thousands; what fails here prints its smallest network.
"""

import pytest
from support.fuzz import PROPERTIES, Built, Program, build, complaint, programs, shrunk, usable

COUNT, SEED = 100, 0


@pytest.fixture(scope="module")
def networks() -> list[Built]:
    return [built for built in map(build, programs(COUNT, SEED)) if usable(built)]


@pytest.mark.parametrize("name", PROPERTIES)
def test_random_networks(name: str, networks: list[Built]) -> None:
    check = PROPERTIES[name]

    def fails(program: Program) -> bool:
        built = build(program)
        return usable(built) and complaint(check, built) is not None

    for built in networks:
        if complaint(check, built) is not None:
            smallest = build(shrunk(built.program, fails))
            pytest.fail(f"{complaint(check, smallest)}\n{smallest}")


def test_most_properties_judge_many_networks(networks: list[Built]) -> None:
    """Twins and oracles exist; few networks are refused."""
    assert sum(built.twin is not None for built in networks) > len(networks) / 2
    assert sum(built.by_hand is not None for built in networks) > len(networks) / 5
