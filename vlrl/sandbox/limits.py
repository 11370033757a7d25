"""What one program may use."""

from __future__ import annotations

from dataclasses import dataclass

from vlrl.config import SandboxConfig

_DEFAULTS = SandboxConfig()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run. CPU time decides; the wall clock only ends what sleeps or hangs.

    `Limits(time_s=4.0, memory_mb=512, output_mb=8)`
    """

    time_s: float = _DEFAULTS.time_s
    """CPU seconds."""
    memory_mb: int = _DEFAULTS.memory_mb
    """Address space, the interpreter's 40 MB included."""
    output_mb: int = _DEFAULTS.output_mb
    """Each of stdout, stderr, results and every file written."""
    wall_factor: float = _DEFAULTS.wall_factor
    """Wall-clock seconds for each CPU second: neighbours must not fail an honest program."""

    @property
    def wall_s(self) -> float:
        """Wall-clock limit, from the moment that the program's process is made."""
        return self.wall_factor * self.time_s + 1

    @staticmethod
    def of(config: SandboxConfig) -> Limits:
        """The config's own."""
        return Limits(
            time_s=config.time_s,
            memory_mb=config.memory_mb,
            output_mb=config.output_mb,
            wall_factor=config.wall_factor,
        )
