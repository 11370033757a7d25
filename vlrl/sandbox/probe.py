"""What of the sandbox this machine gives, for `vlrl doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from vlrl.config import SandboxConfig
from vlrl.sandbox.errors import SandboxUnavailable
from vlrl.sandbox.selftest import establish
from vlrl.sandbox.worker import WorkerDied


@dataclass(frozen=True, kw_only=True)
class Probe:
    """`tier` is A or B, "" where programs can't be run; `detail` says what there is, or why not."""

    tier: str
    detail: str

    @property
    def works(self) -> bool:
        """Whether untrusted programs can be run."""
        return bool(self.tier)


def probe(config: SandboxConfig | None = None) -> Probe:
    """Find the tier by the self-test. Takes a second at most."""
    try:
        found = establish(config or SandboxConfig())
    except (SandboxUnavailable, WorkerDied) as error:
        return Probe(tier="", detail=str(error))
    have = found.isolation
    files = f"Landlock {have.landlock}" if have.landlock else "no Landlock"
    parts = [f"tier {found.plan.tier.upper()}", "system call list", files]
    parts += [f"without {name}: {why}" for name, why in have.missing.items()]
    return Probe(tier=found.plan.tier.upper(), detail=", ".join(parts))
