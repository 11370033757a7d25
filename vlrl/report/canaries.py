"""Signs that a policy is after its verifier rather than its problems. Logged, never failed.

An honest policy shows some of them too: what counts is a rate that climbs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from vlrl.rewards.parts import count_boxes
from vlrl.sandbox.canaries import suspicious
from vlrl.tasks.coding import extract_program
from vlrl.types import Attempt, Group, Status, Tests
from vlrl.verifiers.held_out import Refusals

NO_RESULT = re.compile(r"no value|exit code \d|without a result")
"""In a program's note: it ended by itself, without an error's last line and before its result."""
NOTABLE = 0.02


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """Rates of one rollout batch.

    `timeouts` and `several_boxes` (after the reasoning) are shares of all attempts;
    `exits_without_result` and, by name, `suspicious` are shares of the programs among them, of
    which there are `num_programs`. `held_out` is None where no such verifier is configured.
    """

    timeouts: float
    several_boxes: float
    num_programs: int
    exits_without_result: float
    suspicious: dict[str, float]
    held_out: Refusals | None

    @property
    def remark(self) -> str:
        """The rates from NOTABLE on in one line; empty if there are none."""
        rates = {
            "timeouts": self.timeouts,
            "several boxes": self.several_boxes,
            "exits without a result": self.exits_without_result,
            **{f"programs with {name}": rate for name, rate in self.suspicious.items()},
        }
        if self.held_out:
            rates["refused by the held-out verifier"] = self.held_out.gap
        said = [f"{name} {rate:.0%}" for name, rate in rates.items() if rate >= NOTABLE]
        return f"canaries: {', '.join(said)}" if said else ""


def canaries(groups: Sequence[Group], held_out: Refusals | None = None) -> Canaries:
    """The rates of some graded groups."""
    attempts = [attempt for group in groups for attempt in group.attempts]
    programs = [
        attempt
        for group in groups
        if isinstance(group.problem.answer, Tests)
        for attempt in group.attempts
    ]
    return Canaries(
        timeouts=_share([a.verdict.status is Status.TIMEOUT for a in attempts]),
        several_boxes=_share([count_boxes(a.completion.text) > 1 for a in attempts]),
        num_programs=len(programs),
        exits_without_result=_share([_ended_early(a) for a in programs]),
        suspicious=_suspicious(programs),
        held_out=held_out,
    )


def _suspicious(programs: Sequence[Attempt]) -> dict[str, float]:
    touched = Counter(
        name
        for attempt in programs
        if (program := extract_program(attempt.completion.text))
        for name in suspicious(program)
    )
    return {name: num / len(programs) for name, num in sorted(touched.items())}


def _ended_early(attempt: Attempt) -> bool:
    return not attempt.verdict.correct and bool(NO_RESULT.search(attempt.verdict.note))


def _share(found: Sequence[bool]) -> float:
    return fmean(found) if found else 0.0
