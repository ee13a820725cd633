"""Many variants of many samples, a bounded number at a time."""

from collections.abc import Iterator

from ierf.errors import IerfError


def portions(samples: int, variants: int, batch: int) -> Iterator[tuple[slice, slice]]:
    """Blocks (samples, variants) that cover all pairs once, each of at most `batch` pairs; variants run fastest."""
    if batch < 1:
        raise IerfError(f"batch is at least 1, not {batch}")
    for i in range(0, samples, batch):
        n = min(batch, samples - i)
        step = batch // n
        for v in range(0, variants, step):
            yield slice(i, i + n), slice(v, min(v + step, variants))
