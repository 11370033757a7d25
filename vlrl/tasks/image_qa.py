"""image_qa: a question about images; the answer is an option, a number, a word or LaTeX."""

from __future__ import annotations

from vlrl.grading.math_answer import Match, same_answer
from vlrl.grading.number import parse_count, parse_number
from vlrl.grading.response import bare_answer, final_answer
from vlrl.grading.text import same_text
from vlrl.tasks.base import Row
from vlrl.tasks.common import (
    checked,
    gold_of,
    judged,
    not_judged,
    question_of,
    unparsable,
    verdict_by_gold,
)
from vlrl.types import Completion, Problem, Status, Verdict


class ImageQA:
    """One answer: an option, a text that equals the gold's, or what a form asks for."""

    def problem(self, row: Row) -> Problem:
        """`row.answer`: a text, a form, or with `row.options` the text or letter of one of them.

        Raises:
            RowError: no question or answer, or an answer that can't be judged.
        """
        problem = Problem(
            id=row.id,
            domain="image_qa",
            question=question_of(row),
            answer=gold_of(row),
            images=row.images,
            source=row.source,
        )
        return checked(self, problem)

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        """The verdict. A response that is one short line counts as the answer."""
        gold = problem.answer
        verdict = verdict_by_gold(gold, completion.text)
        if verdict is not None:
            return verdict
        answer = final_answer(completion.text) or bare_answer(completion.text)
        if answer is None:
            return unparsable(completion.text)
        if not isinstance(gold, str):
            raise TypeError(f"{problem.id}: image_qa judges a text, a choice or a form")
        match = _same(gold, answer)
        if match is Match.TIMEOUT:
            return not_judged(Status.TIMEOUT, "comparing the answer took too long", answer)
        return judged(match is Match.SAME, answer)


def _same(gold: str, answer: str) -> Match:
    """Text; else a count as digits or word; else, for a gold with digits or LaTeX, its value."""
    if same_text(gold, answer, articles=True):
        return Match.SAME
    if parse_number(gold) is not None and parse_count(answer) is not None:
        return Match.SAME if parse_number(gold) == parse_count(answer) else Match.DIFFERENT
    if any(c.isdigit() or c in "\\^" for c in gold):
        return same_answer(gold, answer)
    return Match.DIFFERENT
