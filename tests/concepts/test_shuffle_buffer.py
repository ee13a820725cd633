"""The mixing buffer: every row once, far from where it was, and the same rest from every position."""

from collections.abc import Callable, Iterator

import pytest
import torch

from ierf.concepts.sae.sources import Position, Rows, mixed

SIZES = (7, 1, 30, 0, 12, 50, 3, 41, 64, 2)


def numbered(sizes: tuple[int, ...] = SIZES) -> Callable[[int], Iterator[Rows]]:
    """Chunks of these sizes: rows are numbered, in two layers."""

    def chunks(start: int) -> Iterator[Rows]:
        for i in range(start, len(sizes)):
            first = sum(sizes[:i])
            rows = torch.arange(first, first + sizes[i], dtype=torch.float32)[:, None]
            yield {"a": rows, "b": -rows.expand(-1, 2)}

    return chunks


@pytest.mark.parametrize(("rows", "batch"), [(40, 5), (16, 8), (1000, 7), (1, 1)])
def test_every_row_leaves_once_and_layers_stay_together(rows: int, batch: int) -> None:
    batches = [found for found, _ in mixed(numbered(), rows, batch, seed=1)]
    for found in batches:
        assert torch.equal(found["b"], -found["a"].expand(-1, 2))
    assert sorted(torch.cat([found["a"][:, 0] for found in batches]).tolist()) == list(range(sum(SIZES)))
    assert all(len(found["a"]) == batch for found in batches[: -1 - (rows < sum(SIZES))])


@pytest.mark.parametrize(("rows", "batch"), [(40, 5), (16, 8), (1000, 7)])
def test_the_rest_is_the_same_from_every_position(rows: int, batch: int) -> None:
    whole = list(mixed(numbered(), rows, batch, seed=2))
    for i, (_, position) in enumerate(whole):
        rest = [found["a"][:, 0].tolist() for found, _ in mixed(numbered(), rows, batch, 2, position)]
        assert rest == [found["a"][:, 0].tolist() for found, _ in whole[i + 1 :]], position


def test_going_on_reads_two_blocks_at_most() -> None:
    sizes = (10,) * 100
    whole = list(mixed(numbered(sizes), 100, 10, seed=0))
    position = whole[70][1]
    read: list[int] = []

    def chunks(start: int) -> Iterator[Rows]:
        for i, chunk in enumerate(numbered(sizes)(start), start):
            read.append(i)
            yield chunk

    first, _ = next(mixed(chunks, 100, 10, 0, position))
    assert torch.equal(first["a"], whole[71][0]["a"])
    assert len(read) <= 20


def test_neighbouring_rows_are_far_apart_and_blocks_meet() -> None:
    batches = [found["a"][:, 0] for found, _ in mixed(numbered((10,) * 100), 200, 20, seed=3)]
    pools = [torch.cat(batches[5 + 10 * i : 15 + 10 * i]) for i in range(4)]
    for i, pool in enumerate(pools):
        blocks = (pool // 200).long().bincount(minlength=5)
        assert blocks[i] == blocks[i + 1] == 100
    follow = torch.cat(batches).diff().abs()
    assert float((follow == 1).float().mean()) < 0.02


def test_the_seed_decides() -> None:
    orders = [[found["a"][:, 0].tolist() for found, _ in mixed(numbered(), 40, 5, seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_nothing_in_nothing_out() -> None:
    assert list(mixed(numbered(()), 10, 2)) == []
    assert list(mixed(numbered((0, 0)), 10, 2, start=Position())) == []
