"""One problem put to a model: its answers, each with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from vlrl.broken import BrokenRow, problem_at, task_of
from vlrl.config import ConfigError
from vlrl.evaluate import open_rollout
from vlrl.recipes import open_recipe
from vlrl.resources import nearest
from vlrl.samplers.base import SamplingParams
from vlrl.tasks import TASKS
from vlrl.tasks.base import Row
from vlrl.types import Problem


def recipe_problem(recipe: str, index: int, root: Path | None) -> Problem:
    """A problem of a recipe's eval split.

    Raises:
        ConfigError: no such recipe or row, or the row is broken.
    """
    opened = open_recipe(recipe, root)
    num_rows = opened.num_rows("eval")
    if num_rows is not None and not 0 <= index < num_rows:
        raise ConfigError(f"--index {index}: recipe {recipe} has rows 0 to {num_rows - 1}")
    found = problem_at(opened, "eval", index, task_of(opened, TASKS), None)
    if isinstance(found, BrokenRow):
        raise ConfigError(f"row {index} of recipe {recipe} can't be used: {found.why}")
    return found


def own_problem(domain: str, question: str, answer: str, images: Sequence[Path]) -> Problem:
    """A problem from the command line.

    Raises:
        ConfigError, RowError: no such domain, or no question or answer.
    """
    if domain not in TASKS:
        raise ConfigError(f"--domain {domain!r}: {nearest(domain, TASKS)}")
    row = Row(id="play", source="play", question=question, answer=answer, images=tuple(images))
    return TASKS[domain].problem(row)


def play(model: str, problem: Problem, *, n: int, max_tokens: int) -> None:
    """Sample n responses and print each with its verdict."""
    console = Console()
    with open_rollout(model, max_tokens=max_tokens, max_num_seqs=n) as rollout:
        (group,) = rollout([problem], SamplingParams(n=n, max_tokens=max_tokens, seed=0))
    # As plain text: brackets in it are no markup.
    console.print(Panel(Text(problem.question), title=Text(problem.id)))
    for attempt in group.attempts:
        verdict = attempt.verdict
        said = f"{verdict.status.value}, {'right' if verdict.correct else 'wrong'}"
        said += f", reward {verdict.reward:g}" + (f" ({verdict.note})" if verdict.note else "")
        console.print(Panel(Text(attempt.completion.text or "(nothing)"), subtitle=Text(said)))
