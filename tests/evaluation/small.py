"""A suite of four questions, and a source that answers from a script and counts."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plain_task import PLAIN_TASKS
from vlrl.evaluation.judging import OnGroup, UnderWay
from vlrl.evaluation.openers import Opened
from vlrl.evaluation.rows import SeenCompletion
from vlrl.evaluation.run import EvalOptions
from vlrl.graders import Judges
from vlrl.samplers.base import SamplingParams
from vlrl.tasks.base import Task
from vlrl.types import Finish, Problem, Prompt


def write_suite(folder: Path, num: int = 4, more: str = "k: 2", name: str = "own") -> str:
    """A suite of questions q0, q1 ... whose answers are 0, 1 ..."""
    rows = [json.dumps({"question": f"q{i}", "answer": str(i)}) + "\n" for i in range(num)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(rows))
    (folder / "mine.yaml").write_text(
        "name: mine\ntask: math_qa\nlicence: none\nfile: {}\nsplits: {eval: rows.jsonl}\n"
    )
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\n{more}\nproblems: [{{recipe: {folder / 'mine.yaml'}}}]\n")
    return str(path)


@dataclass
class ScriptedSource:
    """Answers `number of the question` or, by the seed, a wrong thing; stops where it is told."""

    tasks: Mapping[str, Task] = field(default_factory=lambda: PLAIN_TASKS)
    asked: list[str] = field(default_factory=list)
    stop_after: int | None = None

    def num_at_once(self, n: int) -> int:
        return 3

    def answer(
        self,
        problems: Sequence[Problem],
        params: SamplingParams,
        seeds: Sequence[int],
        on_group: OnGroup,
    ) -> None:
        judges = Judges(self.tasks)
        under_way = UnderWay(judges.later, on_group)
        for index, (problem, seed) in enumerate(zip(problems, seeds, strict=True)):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(problem.id)
            completions = [
                SeenCompletion(
                    text=problem.id.rpartition("/")[2] if (seed + i) % 3 else f"no {seed + i}",
                    token_ids=(),
                    logprobs=(),
                    finish=Finish.STOP,
                    num_tokens=i + 1,
                )
                for i in range(params.n)
            ]
            under_way.add(index, problem, Prompt(token_ids=()), completions)
            under_way.hand_on(wait=True)
        judges.close()

    def close(self) -> None: ...


@dataclass(frozen=True)
class ScriptedOpener:
    """Opens one source again and again."""

    source: ScriptedSource
    who: str = "a"
    name: str = "scripted"
    default_out: Path = Path("unused")

    @contextmanager
    def open(self, max_tokens: int) -> Generator[Opened]:
        yield Opened(source=self.source, who={"model": self.who}, check=lambda _: None)


def options(folder: Path, **changes: Any) -> EvalOptions:
    """Of the small suite into FOLDER/out."""
    suites = changes.pop("suites", None) or (write_suite(folder),)
    return EvalOptions(suites=suites, **{"out": folder / "out", **changes})
