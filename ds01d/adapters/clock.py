"""Time that never jumps: the wall clock at the start plus what has passed since. Owns no timer."""

import time
from collections.abc import Callable

#: Seconds by which the wall clock may run away before we follow it: an hour set wrong is followed, a slewed second not.
_DRIFT_S = 30.0


class Clock:
    """Epoch seconds, steady between two calls of `follow`; `monotonic` is for measuring.

    What has passed counts through a suspended machine (CLOCK_BOOTTIME): a hold ends whether the machine slept or not.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()

    def now(self) -> float:
        """Epoch seconds, UTC."""
        return self._steady() + self._offset

    def monotonic(self) -> float:
        """Seconds that only ever grow, from no particular moment."""
        return self._steady()

    def drift(self) -> float:
        """Seconds by which the wall clock is ahead of ours."""
        return self._wall() - self.now()

    def follow(self) -> float:
        """Take the wall clock over if it has run away; gives the seconds that `now` jumped by, 0 as a rule."""
        drift = self.drift()
        if abs(drift) <= _DRIFT_S:
            return 0.0
        self._offset += drift
        return drift
