"""`vlrl verifier check`: what gets through a user's verifier, makes it raise, or slows it down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlrl.types import Status
from vlrl.verifiers.cases import Case, read_cases
from vlrl.verifiers.check_process import Answer, CheckProcess
from vlrl.verifiers.hostile import FRAMES, Frame, Hostile, about, at_large, decoys, frame_of

LIMIT_S, SLOW_S = 10.0, 1.0
MAX_GOLDS = 12
"""Golds that the whole suite is made for; each has some 200 responses."""
MAX_DEATHS = 3
"""Of one kind; its rest isn't tried then: each costs the limit and a new process."""
SHOWN = 3
"""Findings shown of each kind and sort."""
OWN = "your cases"
DIED = "hung or died"
WRONGS = ("got through", "refused", "raised", DIED, "slow", "failed")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A case that went wrong; `wrong` is one of WRONGS."""

    kind: str
    wrong: str
    gold: str
    response: str
    why: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """How many cases of each kind were tried, what went wrong, how many were left out."""

    tried: dict[str, int]
    findings: tuple[Finding, ...]
    num_left_out: int


class _Suite:
    """Asks case by case and keeps count."""

    def __init__(self, process: CheckProcess, slow_s: float) -> None:
        self.process = process
        self.slow_s = slow_s
        self.tried: dict[str, int] = {}
        self.findings: list[Finding] = []
        self.num_left_out = 0

    def run(self, case: Case, hostile: Hostile, max_s: float | None = None) -> None:
        """Ask for one verdict, and once more if it was slow: neighbours make noise."""
        if [(f.kind, f.wrong) for f in self.findings].count((hostile.kind, DIED)) >= MAX_DEATHS:
            self.num_left_out += 1
            return
        answer = self.process.ask(case, hostile.response)
        limit = max_s or self.slow_s
        if answer.seconds > limit and not answer.died:
            answer = min(answer, self.process.ask(case, hostile.response), key=lambda a: a.seconds)
        self.tried[hostile.kind] = self.tried.get(hostile.kind, 0) + 1
        for wrong, why in _wrongs(hostile, answer, limit):
            self.findings.append(
                Finding(
                    kind=hostile.kind,
                    wrong=wrong,
                    gold=gold_text(case.gold),
                    response=hostile.response,
                    why=why,
                    seconds=round(answer.seconds, 3),
                )
            )


def check(
    reference: str, cases_file: Path, *, limit_s: float = LIMIT_S, slow_s: float = SLOW_S
) -> CheckReport:
    """Run the user's cases and the hostile suite, made for each of their golds.

    Raises:
        ConfigError: the verifier can't be loaded, or a line of the file is no case.
    """
    cases = read_cases(cases_file)
    process = CheckProcess(reference, limit_s)
    suite = _Suite(process, slow_s)
    try:
        for case in cases:
            own = Hostile(kind=OWN, response=case.response, expect=case.expect, why=case.why)
            suite.run(case, own, case.max_s)
        golds = {text: case for case in reversed(cases) if (text := gold_text(case.gold)).strip()}
        for number, (gold, case) in enumerate(list(reversed(golds.items()))[:MAX_GOLDS]):
            frames = _frames(gold, cases)
            decoy = _decoy(process, case, decoys(gold, list(golds)), frames)
            for hostile in about(gold, decoy, frames):
                suite.run(case, hostile)
            for hostile in at_large(gold, decoy, frames) if number == 0 else ():
                suite.run(case, hostile)
    finally:
        process.close()
    return CheckReport(
        tried=suite.tried, findings=tuple(suite.findings), num_left_out=suite.num_left_out
    )


def gold_text(gold: object) -> str:
    """A gold as it may stand in a response."""
    return gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)


def _frames(gold: str, cases: Sequence[Case]) -> list[Frame]:
    """The built-in frames, and that of the first right response with this gold in it."""
    right = (c.response for c in cases if c.expect and gold_text(c.gold) == gold)
    own = next((frame for text in right if (frame := frame_of(gold, text))), None)
    return [*FRAMES, own] if own and own not in FRAMES else list(FRAMES)


def _decoy(
    process: CheckProcess, case: Case, choices: Sequence[str], frames: Sequence[Frame]
) -> str:
    """An answer that the verifier itself takes for wrong; the first choice if there is none."""
    for choice in choices:
        if not any(process.ask(case, frame.around(choice)).correct for frame in frames):
            return choice
    return choices[0]


def _wrongs(hostile: Hostile, answer: Answer, limit_s: float) -> Iterator[tuple[str, str]]:
    """What is wrong with an answer, in a few words each."""
    if answer.died:
        yield DIED, answer.died
    elif answer.raised:
        yield "raised", answer.raised
    elif answer.status == Status.ERROR:
        yield "failed", answer.note or "status error"
    elif hostile.expect is True and not answer.correct:
        yield "refused", f"{hostile.why or 'is to be correct'} ({answer.note or answer.status})"
    elif hostile.expect is False and answer.correct:
        yield "got through", hostile.why or "is to be wrong"
    elif hostile.kind == "empty" and answer.reward > 0:
        yield "got through", f"reward {answer.reward:g} for nothing"
    if answer.seconds > limit_s and not answer.died:
        yield "slow", f"{answer.seconds:.2f} s"


def show(report: CheckReport, console: Console) -> bool:
    """Print what was tried and what went wrong; whether nothing did."""
    table = Table(title="vlrl verifier check")
    table.add_column("cases", no_wrap=True)
    table.add_column("tried", justify="right")
    for wrong in WRONGS:
        table.add_column(wrong, justify="right")
    for kind, num in report.tried.items():
        counts = [
            sum(f.kind == kind and f.wrong == wrong for f in report.findings) for wrong in WRONGS
        ]
        table.add_row(kind, str(num), *(f"[red]{n}[/red]" if n else "0" for n in counts))
    console.print(table)
    for finding in _first_of_each(report.findings):
        console.print(
            f"[red]{finding.wrong}[/red] ({finding.kind}): gold {escape(_short(finding.gold))}, "
            f"response {escape(_short(finding.response))}: {escape(finding.why)}",
            soft_wrap=True,
        )
    if report.num_left_out:
        console.print(f"{report.num_left_out} cases not tried: {MAX_DEATHS} of their kind hung")
    total = sum(report.tried.values())
    if report.findings:
        console.print(f"{len(report.findings)} findings in {total} cases; --out FILE has them all")
    else:
        console.print(f"nothing got through: {total} cases")
    return not report.findings


def write_findings(report: CheckReport, path: Path) -> None:
    """All findings, a line each; in ASCII, as responses may hold half surrogate pairs."""
    lines = [json.dumps(asdict(finding)) + "\n" for finding in report.findings]
    path.write_text("".join(lines), encoding="ascii")


def _first_of_each(findings: Sequence[Finding]) -> Iterator[Finding]:
    seen: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        seen[finding.kind, finding.wrong] += 1
        if seen[finding.kind, finding.wrong] <= SHOWN:
            yield finding


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:70]}... ({len(text):,} characters)"
