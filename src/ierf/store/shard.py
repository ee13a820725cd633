"""Which part of the work is ours, when several processes fill one store."""

import os
from dataclasses import dataclass

import torch

from ierf.errors import IerfError


@dataclass(frozen=True)
class Shard:
    """Every `count`-th block, from block `index` on."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise IerfError(
                f"there is no shard {self.index} of {self.count}; shards are counted from 0, as in 0/4 … 3/4"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """A shard from `i/n`, counted from 0."""
        index, slash, count = text.partition("/")
        if not (slash and index.strip().isdecimal() and count.strip().isdecimal()):
            raise IerfError(f"a shard is given as i/n, counted from 0, as in 0/4; got {text!r}")
        return cls(int(index), int(count))

    @classmethod
    def of_this_process(cls) -> "Shard":
        """By rank: of `torch.distributed` where it runs, else of `torchrun`'s environment, else everything."""
        if _distributed():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def owns(self, block: int) -> bool:
        return block % self.count == self.index


def wait_for_all() -> None:
    """Until every rank is here, if `torch.distributed` runs."""
    if _distributed():
        torch.distributed.barrier()


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
