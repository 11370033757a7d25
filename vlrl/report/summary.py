"""The end of a run: Pass@1 per domain before and after, on the screen and in summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlrl.broken import BROKEN_FILE
from vlrl.report.console import score_table
from vlrl.report.log import read_jsonl, write_json
from vlrl.sandbox import in_force
from vlrl.scores import DomainScore, Interval

if TYPE_CHECKING:  # run.py imports the reports
    from vlrl.run import Run


def finish(run: Run) -> None:
    """Print the table of Pass@1 and where everything lies; write summary.json."""
    steps = read_jsonl(run.folder / "metrics.jsonl")
    evals = read_jsonl(run.folder / "evals.jsonl")
    summary: dict[str, Any] = {
        "train_s": round(sum(line["seconds"] for line in steps), 1),
        "eval_s": round(sum(line["seconds"] for line in evals), 1),
        "updates": run.learner.num_updates,
        "model_parameters": sum(p.numel() for p in run.learner.model.parameters()),
        "sandbox": in_force(),
        "domains": {},
    }
    columns: dict[str, dict[str, DomainScore]] = {}
    for name, line in (("before", evals[:1]), ("after", evals[1:][-1:])):
        if line:
            columns[name] = {d: _score(s) for d, s in line[0]["scores"].items()}
    for name, scores in columns.items():
        for domain, score in scores.items():
            entry = summary["domains"].setdefault(domain, {})
            interval = score.pass_at_1
            entry[name] = {
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": score.num_problems,
            }
    write_json(run.folder / "summary.json", summary)
    if columns:
        run.progress.console.print(score_table("Pass@1 by domain", columns))
    if broken := {name: num for name, num in run.stream.num_broken.items() if num}:
        said = ", ".join(f"{name} {num}" for name, num in broken.items())
        run.progress.warn(f"broken rows skipped: {said} (named in {run.folder / BROKEN_FILE})")
    run.progress.say(
        f"trained {summary['updates']} updates in {summary['train_s']:.0f} s, "
        f"evaluated in {summary['eval_s']:.0f} s\n"
        f"run folder: {run.folder}\n"
        f"checkpoint: {run.last_checkpoint()}"
    )


def _score(plain: Mapping[str, Any]) -> DomainScore:
    fields: dict[str, Any] = {**plain, "pass_at_1": Interval(**plain["pass_at_1"])}
    return DomainScore(**fields)
