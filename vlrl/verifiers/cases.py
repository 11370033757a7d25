"""A user's cases for `vlrl verifier check`: a gold, a response, and whether it is correct.

{"gold": "red", "response": "The answer is Red.", "expect": true}

Optionally `id`, `question`, `options` (texts to choose from), `max_s` (seconds it may take), and
`why`, `tag` and `domain`, which are notes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from vlrl.config import ConfigError, Section, validate


class Case(Section):
    """One line of a file of cases."""

    gold: Any
    response: str
    expect: bool
    id: str | int | None = None
    question: str = "(not in the file)"
    options: tuple[str, ...] = ()
    max_s: float | None = Field(default=None, gt=0)
    why: str = ""
    tag: str = ""
    domain: str = ""


def read_cases(path: Path) -> list[Case]:
    """The file's cases.

    Raises:
        ConfigError: lines that are no cases, each by its number; no cases at all, or none that is
            to be correct.
    """
    cases: list[Case] = []
    wrong: list[str] = []
    # Bytes: a line may end in nothing but a line feed, whatever the responses hold.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            cases.append(_case(line, f"{path}, line {number}"))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    if not any(case.expect for case in cases):
        raise ConfigError(
            f"{path}: no case has `expect: true`: a verifier that refuses everything would pass"
        )
    return cases


def _case(line: bytes, where: str) -> Case:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: a case is a JSON object")
    response = row.get("response")
    if not isinstance(response, str):
        return validate(Case, row, where)
    # Apart, as it may hold what pydantic's JSON refuses, such as half a surrogate pair.
    case = validate(Case, {**row, "response": ""}, where)
    return case.model_copy(update={"response": response})
