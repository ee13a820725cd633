"""Random numbers that belong to a place rather than to a turn: SplitMix64 (Steele, Lea and Flood 2014)."""

from jaxtyping import Int
from torch import Tensor

GOLDEN, _FIRST, _SECOND = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def scrambled(keys: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Numbers that look random, from any numbers, modulo 2⁶⁴ (int64 holds them, half of them as negative ones)."""
    mixed = keys + GOLDEN
    mixed = (mixed ^ shifted(mixed, 30)) * _FIRST
    mixed = (mixed ^ shifted(mixed, 27)) * _SECOND
    return mixed ^ shifted(mixed, 31)


def shifted(numbers: Int[Tensor, "*shape"], bits: int) -> Int[Tensor, "*shape"]:
    """The 64 bits moved right, with zeros from the left."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
