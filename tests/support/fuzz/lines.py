"""What an operation of a random network is drawn from, and what it writes."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Draw:
    """What an operation is drawn from: its place in the program, its choices, the map's shape, earlier maps."""

    k: int
    rng: random.Random
    shape: tuple[int, int, int, int]
    saved: Mapping[str, tuple[int, ...]]

    def pick(self, choices: Sequence[Any]) -> Any:
        return self.rng.choice(choices)

    def __format__(self, spec: str) -> str:
        """A name of its own: `f"{d:m}"` is `m3`."""
        return f"{spec}{self.k}"


@dataclass(frozen=True)
class Lines:
    """One operation as source."""

    lines: tuple[str, ...]
    twin: tuple[str, ...] | None = None
    """The same function without in-place operations; None: these very lines, unless they mutate."""
    members: Mapping[str, str] = field(default_factory=dict)
    mutates: bool = False
    """Whether the map that enters is changed in place."""
    saves: tuple[str, ...] = ()
    by_hand: tuple[str, ...] | None = None


Operation = Callable[[Draw], Lines | None]


def one(line: str, twin: str | None = None, mutates: bool = False, by_hand: str | None = None, **members: str) -> Lines:
    """An operation of a line, whose lines are separated by semicolons."""
    split = partial(str.split, sep="; ")
    return Lines(
        tuple(split(line)),
        None if twin is None else tuple(split(twin)),
        members,
        mutates,
        (),
        None if by_hand is None else tuple(split(by_hand)),
    )
