"""What of the sandbox this machine gives, for `vlrl doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from vlrl.sandbox.worker import Worker, WorkerDied


@dataclass(frozen=True, kw_only=True)
class Probe:
    """On and off, and why. `works` is whether programs can be run at all."""

    works: bool
    no_network: bool = False
    process_namespace: bool = False
    private_files: bool = False
    other_user: bool = False
    missing: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Everything that this sandbox knows is in force."""
        return self.works and not self.missing


def probe() -> Probe:
    """Start a worker, ask what it has, stop it. Takes a fraction of a second."""
    try:
        worker = Worker()
    except (WorkerDied, OSError) as error:
        return Probe(works=False, missing=(f"worker: {error}",))
    have = worker.isolation
    worker.close()
    return Probe(
        works=True,
        no_network=have.network,
        process_namespace=have.processes,
        private_files=have.files,
        other_user=have.user or have.uid >= 0,
        missing=tuple(f"{name}: {why}" for name, why in have.missing.items()),
    )
