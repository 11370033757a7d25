"""Runs untrusted Python programs; knows nothing of RL. Start at `Sandbox` in pool.py."""

from vlrl.sandbox.errors import SandboxBroken, SandboxUnavailable
from vlrl.sandbox.judge import Ending, Outcome
from vlrl.sandbox.limits import Limits
from vlrl.sandbox.pool import Sandbox, Tests, configure, default_sandbox, in_force
from vlrl.sandbox.probe import Probe, probe
from vlrl.sandbox.selftest import Protection

__all__ = [
    "Ending",
    "Limits",
    "Outcome",
    "Probe",
    "Protection",
    "Sandbox",
    "SandboxBroken",
    "SandboxUnavailable",
    "Tests",
    "configure",
    "default_sandbox",
    "in_force",
    "probe",
]
