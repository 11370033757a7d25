"""Runs untrusted Python programs; knows nothing of RL. Start at `Sandbox` in pool.py."""

from vlrl.sandbox.errors import SandboxBroken
from vlrl.sandbox.limits import Limits
from vlrl.sandbox.pool import Ending, Outcome, Sandbox, default_sandbox
from vlrl.sandbox.probe import Probe, probe

__all__ = [
    "Ending",
    "Limits",
    "Outcome",
    "Probe",
    "Sandbox",
    "SandboxBroken",
    "default_sandbox",
    "probe",
]
