"""Laws of every task: the gold is correct; wrong, empty, huge and hostile responses are not.

Promises to users of vlrl: a new domain gets a line in CASES and must keep all of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vlrl.sandbox import SandboxBroken, default_sandbox
from vlrl.tasks import TASKS, Row
from vlrl.types import (
    Boxes,
    CallTest,
    CallTests,
    Completion,
    Count,
    Finish,
    JsonFields,
    NearNumber,
    Pattern,
    Points,
    Problem,
    SimilarText,
    Status,
    Verdict,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    domain: str
    answer: object
    gold: str
    """A response that is right."""
    wrong: str
    options: tuple[str, ...] = ()
    extra: Mapping[str, object] | None = None

    def problem(self) -> Problem:
        row = Row(
            id=f"law/{self.domain}",
            source="laws",
            question="What is it?",
            answer=self.answer,
            options=self.options,
            extra=self.extra or {},
        )
        return TASKS[self.domain].problem(row)


CALLS = CallTests(function="f", tests=(CallTest(args=(3,), expected=9),))
CASES = [
    Case(domain="math_qa", answer="5", gold=r"\boxed{5}", wrong=r"\boxed{6}"),
    Case(domain="math_qa", answer=r"\frac{\pi}{4}", gold=r"\boxed{\pi/4}", wrong=r"\boxed{\pi}"),
    Case(domain="image_qa", answer="blue", gold="blue", wrong="red"),
    Case(domain="image_qa", answer="7", gold="7", wrong="8"),
    Case(domain="image_qa", answer="B", options=("cat", "dog"), gold="B", wrong="A"),
    Case(domain="logic", answer="yes", gold="yes", wrong="no"),
    Case(
        domain="logic",
        answer="Ann is a knight, and Bo is a knave.",
        gold="Ann is a knight, and Bo is a knave.",
        wrong="Ann is a knave, and Bo is a knave.",
    ),
    Case(
        domain="image_qa",
        answer=Boxes(boxes=((10, 10, 110, 110),), size=(640, 480)),
        gold="[12, 10, 110, 110]",
        wrong="[70, 10, 110, 110]",
    ),
    Case(domain="image_qa", answer=Points(regions=((1, 1, 4, 4),)), gold="(2, 3)", wrong="(5, 5)"),
    Case(domain="image_qa", answer=JsonFields(value={"a": 5}), gold='{"a": 5}', wrong='{"a": "5"}'),
    Case(domain="image_qa", answer=SimilarText(texts=("Ipoh",)), gold="lpoh", wrong="Ko"),
    Case(domain="logic", answer=Count(value=4), gold="There are four.", wrong="There are 14."),
    Case(domain="logic", answer=NearNumber(value="4.2", relative=0.1), gold="4.1", wrong="5"),
    Case(
        domain="logic",
        answer=Pattern(pattern="[A-Z]{2}[0-9]+", example="AB12"),
        gold="XY9",
        wrong="X9",
    ),
    Case(domain="coding", answer=CALLS, gold="def f(x): return x * x", wrong="def f(x): return x"),
    Case(
        domain="coding",
        answer="",
        extra={"code": "assert f(3) == 9\nassert f(2) == 4", "function": "f"},
        gold="def f(x): return x * x",
        wrong="def f(x): return 9",
    ),
]
CODING = next(case for case in CASES if case.domain == "coding")
MEGABYTE = 1 << 20
HOSTILE = {
    "empty": "",
    "blank": " \n\t ",
    "open thought": r"<think>\boxed{5} blue yes",
    "open box": r"\boxed{5",
    "huge word": "x" * MEGABYTE,
    "huge number": "9" * MEGABYTE,
    "huge box": r"\boxed{" + "9" * MEGABYTE + "}",
    "huge prose": "The answer is " * (MEGABYTE // 14),
    "huge braces": "{" * MEGABYTE,
    "huge fences": "```\n" * (MEGABYTE // 4),
    "deep box": r"\boxed{" + "{" * 50_000 + "}" * 50_000 + "}",
    "deep fractions": r"\boxed{" + r"\frac{1}{" * 2000 + "1" + "}" * 2001,
    "deep brackets": "(" * 20_000 + ")" * 20_000,
    "many boxes": r"\boxed{5} " * 50_000 + r"\boxed{}",
    "tower": r"\boxed{10^{10^{10}}}",
    "tower of fives": r"\boxed{5^{5^{(5^{(5^{5})})} - 4}}",
    "factorial": r"\boxed{10000000!}",
    "import in a box": r"\boxed{__import__('os').system('true')}",
    "import": "__import__('os').system('true')",
    "nul": "\\boxed{5\0}",
    "nuls": "\0" * 1000,
    "lone surrogate": "\ud800",
    "boxed surrogate": "\\boxed{\ud800\udfff}",
    "regex": r"\boxed{.*}",
    "format": r"\boxed{%s{0.__class__}}",
    "guesses": "5 6 7 8 9 red blue cat dog yes no",
    "guesses in a box": r"\boxed{5, 6, 7, blue, yes, no, A, B}",
    "not a number": "nan",
    "infinity": "inf",
    "exit": "import os\nos._exit(0)",
    "equal to all": "class E:\n    def __eq__(s, o): return True\ndef f(x): return E()",
}


def name_of(case: Case) -> str:
    return f"{case.domain}-{str(case.answer)[:12]}"


def grade(case: Case, text: str) -> Verdict:
    completion = Completion(text=text, token_ids=(), logprobs=(), finish=Finish.STOP)
    return TASKS[case.domain].grade(case.problem(), completion)


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """Starting the worker processes is not part of a verdict's time."""
    for case in (CASES[1], CODING):
        grade(case, case.wrong)
    yield


def test_every_task_has_a_case() -> None:
    assert {case.domain for case in CASES} == set(TASKS)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_gold_is_correct(case: Case) -> None:
    verdict = grade(case, case.gold)
    assert verdict.status is Status.OK
    assert verdict.correct, verdict.note
    assert verdict.reward == 1.0
    assert verdict.parts == {"correct": 1.0}
    assert verdict.parsed


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_wrong_answer_is_wrong_and_says_why(case: Case) -> None:
    verdict = grade(case, case.wrong)
    assert verdict.status is Status.OK
    assert (verdict.correct, verdict.reward, verdict.parts) == (False, 0.0, {"correct": 0.0})
    assert verdict.note


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_an_empty_response_is_unparsable(case: Case) -> None:
    assert grade(case, "").status is Status.UNPARSABLE


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_hostile_responses_get_nothing_and_end_in_time(case: Case, kind: str) -> None:
    start = time.perf_counter()
    verdict = grade(case, HOSTILE[kind])
    seconds = time.perf_counter() - start
    assert not verdict.correct, verdict
    assert verdict.reward == 0.0
    assert verdict.status is not Status.ERROR
    assert seconds < 10, "a second on an idle machine"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_verdicts_do_not_depend_on_the_thread(case: Case) -> None:
    with ThreadPoolExecutor(4) as threads:
        rights = list(threads.map(lambda n: grade(case, (case.wrong, case.gold)[n % 2]), range(8)))
    assert [verdict.correct for verdict in rights] == [False, True] * 4


def test_a_broken_sandbox_is_an_exception_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise SandboxBroken("no workers")

    monkeypatch.setattr(default_sandbox(), "run", broken)
    with pytest.raises(SandboxBroken):
        grade(CODING, CODING.gold)


def test_a_broken_math_pool_is_an_exception_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlrl.grading import cas

    pool = cas.CasPool(workers=1)
    pool.close()
    monkeypatch.setattr(cas, "default_pool", lambda: pool)
    with pytest.raises(cas.CasBroken):
        grade(CASES[1], r"\boxed{\gcd(2, 4)}")


def rows(shared: Path, folder: str, count: int | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for split in ("train", "heldout"):
        path = shared / "data" / folder / f"{split}.jsonl"
        if path.is_file():
            with path.open(encoding="utf-8") as lines:
                found += [json.loads(line) for line in lines]
    assert found, folder
    return found[:: max(1, len(found) // count)] if count else found


def real(domain: str, question: str, answer: object, response: str, **more: Any) -> bool:
    row = Row(id="real", source="shared", question=question, answer=answer, **more)
    completion = Completion(text=response, token_ids=(), logprobs=(), finish=Finish.STOP)
    return TASKS[domain].grade(TASKS[domain].problem(row), completion).correct


def test_real_math(shared: Path) -> None:
    for row in rows(shared, "math/gsm8k", 300):
        assert real("math_qa", row["question"], row["answer"], row["answer"])
    for row in rows(shared, "math/math", 500):
        if row["answer"]:
            response = rf"So it is $\boxed{{{row['answer']}}}$."
            assert real("math_qa", row["problem"], row["answer"], response), row["answer"]


def test_real_images(shared: Path) -> None:
    for folder, field in (("image_qa/tabmwp", "choices"), ("image_qa/mathvision", "options")):
        for row in rows(shared, folder, 400):
            options = tuple(row[field] or ())
            response = rf"\boxed{{{row['answer']}}}"
            assert real("image_qa", row["question"], row["answer"], response, options=options), row


def test_real_knights(shared: Path) -> None:
    for row in rows(shared, "logic/knights_knaves", 200):
        gold = row["solution_text"]
        assert real("logic", row["quiz"], gold, row["solution_text_format"].replace("\n", ", "))
        flipped = gold.replace("knave", "?").replace("knight", "knave").replace("?", "knight")
        assert not real("logic", row["quiz"], gold, flipped)


def test_real_mbpp(shared: Path) -> None:
    for row in rows(shared, "code/mbpp", 100):
        code = "\n".join([row["test_setup_code"], *row["test_list"]])
        program = "```python\n" + row["code"].replace("\r\n", "\n") + "\n```"
        assert real("coding", row["text"], row["code"], program, extra={"code": code}), row["code"]


def test_all_of_humaneval(shared: Path) -> None:
    """The canonical solution of each of the 164 problems, as a bare continuation, passes."""
    found = rows(shared, "code/humaneval")
    assert len(found) == 164
    for row in found:
        name = row["entry_point"]
        code = f"{row['test']}\n\ncheck({name})"
        extra = {"code": code, "function": name, "prefix": row["prompt"]}
        solution = row["canonical_solution"]
        assert real("coding", row["prompt"], solution, solution, extra=extra), row["task_id"]
        assert not real("coding", row["prompt"], solution, "    pass\n", extra=extra), name
