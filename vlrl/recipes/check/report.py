"""What a check found: typed, as JSON, and as a page for the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from vlrl.recipes.check.law import Wrong
from vlrl.recipes.schema import Split

SHOWN = 10
"""Rows shown of each kind; the JSON has all."""
BAR = 30
MAX_SAME = 0.02
"""Above this share, answers that agree with other rows' are no accident: the judge is too kind."""
NUM_TOO_FEW = 5
"""Rows that agree with others that a small set may have."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row that fails."""

    row: str
    index: int
    wrong: Wrong
    why: str
    answer: str = ""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A row that the recipe names as a known mistake; `key` is SPLIT/ID."""

    key: str
    index: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A row that asks what the row `first` asks, of the same images."""

    row: str
    first: str
    same_answer: bool


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts by powers of two: `counts[i]` values lie in [2^i, 2^(i+1)); 0 counts as 1."""

    count: int
    smallest: int
    median: int
    largest: int
    counts: tuple[int, ...]

    @staticmethod
    def of(values: Sequence[int]) -> Histogram | None:
        """None without values."""
        if not values:
            return None
        ordered = sorted(values)
        places = Counter(max(value, 1).bit_length() - 1 for value in ordered)
        return Histogram(
            count=len(ordered),
            smallest=ordered[0],
            median=ordered[(len(ordered) - 1) // 2],
            largest=ordered[-1],
            counts=tuple(places[i] for i in range(max(places) + 1)),
        )


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """One split.

    num_judged: rows whose gold was judged; a coding row without a reference solution has none.
    num_compared: rows for which another row's gold was judged.
    """

    split: Split
    rows_in_source: int | None
    rows_by_recipe: int | None
    num_looked_at: int
    num_judged: int
    num_compared: int
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    skips_without_row: tuple[str, ...]
    duplicates: tuple[Duplicate, ...]
    num_images: int
    characters: Histogram | None
    tokens: Histogram | None
    longer_side: Histogram | None
    shorter_side: Histogram | None

    def num(self, wrong: Wrong) -> int:
        """Findings of one kind."""
        return sum(finding.wrong is wrong for finding in self.findings)

    @property
    def too_many_same(self) -> bool:
        """Whether so many rows agree with others that the judge can't tell answers apart."""
        return self.num(Wrong.SAME) > max(NUM_TOO_FEW, MAX_SAME * self.num_compared)

    @property
    def passed(self) -> bool:
        """No row is broken, no gold is wrong, no wrong answer is right."""
        failed = any(self.num(wrong) for wrong in (Wrong.BROKEN, Wrong.GOLD, Wrong.WRONG))
        return not failed and not self.too_many_same


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """A recipe."""

    recipe: str
    task: str
    splits: tuple[SplitReport, ...]

    @property
    def passed(self) -> bool:
        """Whether each split passed."""
        return all(split.passed for split in self.splits)


def write_report(report: CheckReport, path: Path) -> None:
    """All findings as one JSON object; the file is there whole or not at all."""
    data = {**asdict(report), "passed": report.passed}
    text = json.dumps(data, ensure_ascii=False, indent=1, default=_plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    half.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    half.replace(path)


def show(report: CheckReport, console: Console) -> bool:
    """Print the report; whether it passed."""
    for split in report.splits:
        console.print(f"[bold]{escape(report.recipe)}, {split.split}[/bold] ({report.task})")
        _show_counts(split, console)
        _show_findings(split, console)
        _show_histogram("question, characters", split.characters, console)
        _show_histogram("question, tokens", split.tokens, console)
        _show_histogram("image, longer side in pixels", split.longer_side, console)
        _show_histogram("image, shorter side in pixels", split.shorter_side, console)
    console.print("[green]passed[/green]" if report.passed else "[red]failed[/red]")
    return report.passed


def _show_counts(split: SplitReport, console: Console) -> None:
    total = "endless" if split.rows_in_source is None else f"{split.rows_in_source} rows"
    expected = split.rows_by_recipe
    if expected is not None and expected != split.rows_in_source:
        total += f" (the recipe says {expected}: a part of it, or another version)"
    console.print(f"  {total}; looked at {split.num_looked_at}, {split.num_images} images")
    without = split.num_looked_at - split.num_judged - split.num(Wrong.BROKEN) - len(split.skipped)
    told = f", {without} without a reference solution" if without else ""
    console.print(
        f"  golds judged: {split.num_judged}{told}; wrong answers judged: {split.num_compared}"
    )
    if split.duplicates:
        apart = sum(not duplicate.same_answer for duplicate in split.duplicates)
        console.print(
            f"  duplicates: {len(split.duplicates)}, {apart} of them with another answer: "
            + ", ".join(f"{escape(d.row)} = {escape(d.first)}" for d in split.duplicates[:3])
        )
    for skip in split.skipped[:SHOWN]:
        console.print(f"  skipped {escape(skip.key)}: {escape(skip.why)}")
    for key in split.skips_without_row:
        console.print(f"  the skip list names {escape(key)}, which is not there")


def _show_findings(split: SplitReport, console: Console) -> None:
    for wrong in Wrong:
        found = [finding for finding in split.findings if finding.wrong is wrong]
        if not found:
            continue
        grave = wrong is not Wrong.SAME or split.too_many_same
        colour = "red" if grave else "yellow"
        console.print(f"  [{colour}]{wrong.value}: {len(found)}[/{colour}]")
        for finding in found[:SHOWN]:
            text = " ".join(f"{finding.row}: {finding.why}".split())
            console.print(f"    {escape(text[:300])}")
        if len(found) > SHOWN:
            console.print(f"    and {len(found) - SHOWN} more: --json FILE has them all")


def _show_histogram(name: str, histogram: Histogram | None, console: Console) -> None:
    if histogram is None:
        return
    console.print(
        f"  {name}: {histogram.smallest} to {histogram.largest}, median {histogram.median}"
    )
    most = max(histogram.counts)
    first = next(i for i, count in enumerate(histogram.counts) if count)
    for place, count in enumerate(histogram.counts[first:], start=first):
        bar = "#" * -(-BAR * count // most)
        console.print(f"    {2**place:>7} - {2 ** (place + 1) - 1:<7} {count:>7} {bar}")


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{value!r} can't be written as JSON")
