"""What a domain is: how a row becomes a Problem and how a Completion is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from vlrl.types import Completion, ImageSource, Problem, Verdict


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a data set after its recipe renamed the fields, not yet checked by a task.

    `question` is the finished text of the prompt; `answer` is as the data set has it;
    `extra` holds what only one task wants (`function`, `tests`, ...), by the recipe's names.
    `bare` is the question before the recipe's prompt template: by it data sets are compared.
    `fields` are the source's names of what it holds (`answer`, `options`, `extra.tests`, ...).
    """

    id: str
    source: str
    question: str
    answer: object
    options: tuple[str, ...] = ()
    images: tuple[ImageSource, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    bare: str = ""
    fields: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)

    def named(self, *keys: str) -> str:
        """`field_note` of these."""
        return field_note(self.fields, *keys)


def field_note(fields: Mapping[str, str], *keys: str) -> str:
    """The source's names of these, for the end of an error message; "" where none is known."""
    known = [repr(fields[key]) for key in keys if key in fields]
    return f" (field {', '.join(known)})" if known else ""


class RowError(ValueError):
    """A row that can't be used, and why. Such rows are counted and skipped."""


class Task(Protocol):
    """A domain's adapter. The same object serves training and evaluation."""

    def problem(self, row: Row) -> Problem:
        """The problem of a row.

        Raises:
            RowError: the row has no usable question, answer or tests.
        """
        ...

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        """The verdict on a response. Called from several threads; bounded in time.

        An exception is the verifier's own failure: the rollout turns it into `Status.ERROR`.
        """
        ...


@runtime_checkable
class Waiting(Protocol):
    """A task that waits for a judge elsewhere and so may have many verdicts under way.

    `concurrency`: how many at once; None: as many as of tasks that compute their verdicts here.
    """

    concurrency: int | None
