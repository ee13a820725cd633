"""Random networks: recorded as they are, accounted for, alike in every spelling, and as the formulas say.

`python scripts/fuzz_networks.py` tries thousands; what fails here prints its smallest network.
"""

import pytest
from support.fuzz import PROPERTIES, Program, build, complaint, programs, shrunk, usable

COUNT, SEED = 100, 0


@pytest.fixture(scope="module")
def networks() -> list[Program]:
    return [program for program in programs(COUNT, SEED) if usable(build(program))]


@pytest.mark.parametrize("name", PROPERTIES)
def test_random_networks(name: str, networks: list[Program]) -> None:
    check = PROPERTIES[name]
    for program in networks:
        if complaint(check, build(program)) is not None:
            smallest = build(shrunk(program, lambda p: complaint(check, build(p)) is not None))
            pytest.fail(f"{name}: {complaint(check, smallest)}\n{smallest}")


def test_oracles_judge_many(networks: list[Program]) -> None:
    """The comparison with the formulas is not empty."""
    judged = [p for p in networks if build(p).by_hand is not None]
    assert len(judged) > len(networks) / 5
