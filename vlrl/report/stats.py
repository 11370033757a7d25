"""What a rollout batch looked like, before anything was dropped from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from vlrl.types import Attempt, Finish, Group, Status


@dataclass(frozen=True, kw_only=True)
class DomainRollout:
    """One domain's part of a rollout batch. Rates are shares of its attempts.

    `reward` and `correct` are means over the attempts whose verifier did its work, or None.
    """

    num_problems: int
    num_attempts: int
    reward: float | None
    correct: float | None
    truncated: float
    unparsable: float
    timeout: float
    error: float
    masked: float


@dataclass(frozen=True, kw_only=True)
class RolloutStats:
    """A rollout batch by domain, with its size in tokens."""

    domains: dict[str, DomainRollout]
    response_tokens: int
    prompt_tokens: int
    """Un-expanded: an image counts as one token."""


def rollout_stats(groups: Sequence[Group]) -> RolloutStats:
    """The statistics of some graded groups."""
    domains: dict[str, list[Group]] = {}
    for group in groups:
        domains.setdefault(group.problem.domain, []).append(group)
    return RolloutStats(
        domains={name: _domain(members) for name, members in sorted(domains.items())},
        response_tokens=sum(len(a.completion.token_ids) for g in groups for a in g.attempts),
        prompt_tokens=sum(len(g.prompt.token_ids) for g in groups),
    )


def _domain(groups: Sequence[Group]) -> DomainRollout:
    attempts = [attempt for group in groups for attempt in group.attempts]
    scored = [attempt for group in groups for attempt in group.scored]
    return DomainRollout(
        num_problems=len(groups),
        num_attempts=len(attempts),
        reward=fmean(a.verdict.reward for a in scored) if scored else None,
        correct=fmean(a.verdict.correct for a in scored) if scored else None,
        truncated=fmean(a.completion.finish is Finish.LENGTH for a in attempts),
        unparsable=_status_share(attempts, Status.UNPARSABLE),
        timeout=_status_share(attempts, Status.TIMEOUT),
        error=_status_share(attempts, Status.ERROR),
        masked=fmean(a.verdict.masked for a in attempts),
    )


def _status_share(attempts: Sequence[Attempt], status: Status) -> float:
    return fmean(a.verdict.status is status for a in attempts)
