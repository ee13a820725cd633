"""Many variants of many samples, a bounded number at a time."""

from collections.abc import Iterator

from ierf.errors import IerfError


def portions(samples: int, variants: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Blocks (samples, variants) that cover all pairs once, each of at most `at_once` pairs; variants run fastest."""
    if at_once < 1:
        raise IerfError(f"at_once is at least 1, not {at_once}")
    for i in range(0, samples, at_once):
        n = min(at_once, samples - i)
        step = at_once // n
        for v in range(0, variants, step):
            yield slice(i, i + n), slice(v, min(v + step, variants))
