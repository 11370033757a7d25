"""What one program may use."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run. CPU time decides; the wall clock only ends what sleeps or hangs.

    `Limits(time_s=4.0, memory_mb=512, output_mb=8)`
    """

    time_s: float = 4.0
    """CPU seconds, rounded up to whole ones."""
    memory_mb: int = 512
    """Address space, the interpreter's 40 MB included."""
    output_mb: int = 8
    """Each of stdout, stderr, results and every file written."""

    @property
    def cpu_s(self) -> int:
        """CPU limit in whole seconds, as the kernel takes it."""
        return max(1, math.ceil(self.time_s))

    @property
    def wall_s(self) -> float:
        """Wall-clock limit: neighbours on the same cores must not fail an honest program."""
        return 2 * self.time_s + 1
