"""The run folder: what is written, where, and in which form.

config.yaml            the whole config of the run
metrics.jsonl          a line a step: rollout, updates, agreement of the engines, seconds
evals.jsonl            a line an evaluation: Pass@1 by domain, seconds
rollouts.jsonl         every training attempt
evals/STEP/SUITE.jsonl every attempt of an evaluation, with SUITE.json, its scores, and
                       broken_rows.jsonl of the suites
broken_rows.jsonl      rows that could not be used, and why
checkpoints/           see checkpoints/__init__.py
summary.json           Pass@1 per domain before and after
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlrl.scores import DomainScore
from vlrl.types import Group


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole: under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to a JSONL file. What UTF-8 can't hold (half a surrogate pair) becomes a `?`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="replace") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file; none if it isn't there."""
    if not path.exists():
        return []
    with path.open("rb") as lines:  # as bytes: a text may hold other line ends, U+2028 say
        return [json.loads(line) for line in lines]


def write_metrics(run: Path, step: int, **parts: Any) -> None:
    """One line of metrics.jsonl; a part is a plain value, a dataclass or a list of these."""
    plain = {name: _plain(part) for name, part in parts.items()}
    append_jsonl(run / "metrics.jsonl", [{"step": step, **plain}])


def drop_after(path: Path, step: int) -> None:
    """Forget the lines of steps after `step`: a run goes on from an older checkpoint."""
    if not path.exists():
        return
    draft = path.with_name(path.name + ".part")
    with path.open("rb") as lines, draft.open("wb") as kept:
        for line in lines:
            if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                kept.write(line)
    draft.replace(path)


def transcript(groups: Iterable[Group], step: int) -> Iterable[dict[str, Any]]:
    """A line for each attempt: problem, response and verdict."""
    for group in groups:
        for index, attempt in enumerate(group.attempts):
            completion, verdict = attempt.completion, attempt.verdict
            spans = [[span.version, span.start, span.end] for span in completion.versions]
            yield ({"versions": spans} if spans else {}) | {
                "step": step,
                "problem": group.problem.id,
                "domain": group.problem.domain,
                "attempt": index,
                "question": group.problem.question,
                "images": list(group.prompt.image_keys),
                "response": completion.text,
                "finish": completion.finish.value,
                "tokens": len(completion.token_ids),
                "policy_version": completion.policy_version,
                "status": verdict.status.value,
                "correct": verdict.correct,
                "reward": verdict.reward,
                "parts": dict(verdict.parts),
                "masked": verdict.masked,
                "parsed": verdict.parsed,
                "note": verdict.note,
            }


def scores_as_json(scores: Mapping[str, DomainScore]) -> dict[str, Any]:
    """Scores by domain as plain values."""
    return {name: dataclasses.asdict(score) for name, score in scores.items()}


def _plain(part: Any) -> Any:
    if isinstance(part, list):
        return [_plain(item) for item in part]
    return dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part  # pyright: ignore[reportArgumentType]
