"""A comparison of two evaluations as a table, and as a JSON or CSV file with every problem."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vlrl.compare import Comparison, PairedProblem
from vlrl.recorded import EvalFileError
from vlrl.report.log import write_json
from vlrl.scores import Interval

COLUMNS = ("suite", "domain", "problem", "a", "b", "attempts_a", "attempts_b")
FORMS = (".json", ".csv")


def check_form(path: Path) -> None:
    """Refuse a file name that says no form, before any work is done.

    Raises:
        EvalFileError: it ends neither in .json nor in .csv.
    """
    if path.suffix not in FORMS:
        raise EvalFileError(f"{path}: the file's name must end in {' or '.join(FORMS)}")


def show(found: Comparison, run_a: Path, run_b: Path, console: Console) -> None:
    """Print the table, and below it what was left out."""
    table = Table(title=f"Pass@1, A: {run_a}, B: {run_b}")
    for name in ("domain", "prob-\nlems", "A", "B", "B - A\n(95% interval)", "p"):
        table.add_column(name, no_wrap=True)
    table.add_column("won by\nA / B / tie", justify="right", no_wrap=True)
    for d in found.domains:
        table.add_row(
            f"{d.suite}/{d.domain}" if d.suite else d.domain,
            str(d.num_problems),
            f"{d.a:.3f}",
            f"{d.b:.3f}",
            _interval(d.difference),
            f"{d.p_value:.2g}" + ("" if d.exact else "*"),
            f"{d.wins_a} / {d.wins_b} / {d.ties}",
        )
    if len(found.domains) > 1:
        table.add_row("macro average", "", "", "", _interval(found.macro), "", "")
    console.print(table)
    if not all(d.exact for d in found.domains):
        console.print("* from drawn signs; the others are counted out")
    if found.num_ungraded:
        console.print(f"left out, no graded attempt in one of the runs: {found.num_ungraded}")
    if found.num_reworded:
        console.print(
            f"{found.num_reworded} question(s) read otherwise in the other run: other prompts, or "
            "other problems under the same ids?"
        )


def write(found: Comparison, path: Path) -> None:
    """Write the file whole: .json holds everything, .csv a line a problem.

    Raises:
        EvalFileError: the name ends otherwise.
    """
    check_form(path)
    if path.suffix == ".json":
        value: dict[str, Any] = {
            "domains": [dataclasses.asdict(d) for d in found.domains],
            "macro": dataclasses.asdict(found.macro),
            "num_ungraded": found.num_ungraded,
            "num_reworded": found.num_reworded,
            "problems": [_plain(p) for p in found.problems],
        }
        write_json(path, value)
        return
    text = io.StringIO()
    rows = csv.DictWriter(text, [*COLUMNS, "difference", "winner"], lineterminator="\n")
    rows.writeheader()
    rows.writerows(_plain(p) for p in found.problems)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text.getvalue(), encoding="utf-8")
    draft.replace(path)


def _plain(pair: PairedProblem) -> dict[str, Any]:
    kept = {name: getattr(pair, name) for name in COLUMNS}
    return {**kept, "difference": float(pair.difference), "winner": pair.winner}


def _interval(found: Interval) -> str:
    return f"{found.mean:+.3f}  ({found.low:+.3f} to {found.high:+.3f})"
