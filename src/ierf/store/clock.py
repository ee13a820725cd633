"""Where the time goes."""

from time import perf_counter


class Clock:
    """Adds the time between laps to the stages of a run."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, perf_counter()

    def lap(self, stage: str) -> None:
        """All time since the last lap belongs to this stage."""
        now = perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now
