"""How long training takes, and what it takes of the device."""

import time
from collections import deque

from fmlm_cli.engine.runtime import Runtime

_RECENT = 50  # steps over which a speed is taken


class Clock:
    """Measures training time (not evaluation or saving) by when steps arrive, and speeds over the latest.

    `peak`: the device's speed in FLOP/s. `flops_per_token`: of a step, forward and backward.
    """

    def __init__(self, runtime: Runtime, peak: float) -> None:
        self.flops_per_token = 0.0
        self._runtime, self._peak = runtime, peak
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=_RECENT)
        runtime.forget_peak_memory()
        self.skip()

    def skip(self) -> None:
        """Start timing the next step now."""
        self._runtime.synchronize()
        self._begin = time.perf_counter()

    def arrived(self, tokens: int, waited: float) -> float:
        """Take a step that has just arrived; the seconds since the one before.

        `waited`: for how many of them the device had nothing to do for want of batches.
        """
        now = time.perf_counter()
        seconds, self._begin = now - self._begin, now
        self._recent.append((seconds, tokens, waited))
        return seconds

    def figures(self) -> dict[str, float]:
        """Of the latest steps: tokens a second, share of the peak, share of time lost waiting for batches.

        And the most memory that was in use so far, in GiB.
        """
        seconds = self._recent_seconds()
        per_second = sum(tokens for _, tokens, _ in self._recent) / max(seconds, 1e-9)
        waited = sum(waited for _, _, waited in self._recent)
        return {
            "tokens_per_second": round(per_second, 1),
            "peak_share": round(per_second * self.flops_per_token / self._peak, 4),
            "data_wait_share": round(min(waited / max(seconds, 1e-9), 1.0), 4),
            "memory_gib": round(self._runtime.peak_memory() / 2**30, 3),
        }

    def seconds_left(self, steps: int) -> float:
        """Time that so many steps will take at the present speed."""
        return steps * self._recent_seconds() / len(self._recent)

    def _recent_seconds(self) -> float:
        return sum(seconds for seconds, _, _ in self._recent)
