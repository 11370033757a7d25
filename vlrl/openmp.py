"""How OpenMP's threads wait for the next parallel operation; before torch is imported."""

from __future__ import annotations

from collections.abc import MutableMapping

SPIN_COUNT = 2000
"""Turns of libgomp's waiting loop, some tens of microseconds. To sleep at once costs a wake-up for
every operation of a small model: an update of the learner bench takes 0.32 s instead of 0.19 s on
two quiet cores. To spin for long takes cores from what runs beside: the sandbox's programs,
sampler or learner in another thread."""


def set_waiting(environment: MutableMapping[str, str]) -> None:
    """Spin for a moment, then sleep; what the user has set stays."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    environment.setdefault("OMP_WAIT_POLICY", "passive")
