"""logic: puzzles whose answer is a short text, an option, or who is what (knights and knaves)."""

from __future__ import annotations

from vlrl.grading.assignment import parse_assignment, same_assignment
from vlrl.grading.choice import choose
from vlrl.grading.number import parse_number, same_number
from vlrl.grading.response import bare_answer, final_answer
from vlrl.grading.text import same_text
from vlrl.tasks.base import Row, RowError
from vlrl.tasks.common import judged, question_of, text_answer, unparsable
from vlrl.types import Choice, Completion, Problem, Verdict


class Logic:
    """One answer, as asked: nothing is simplified or evaluated."""

    def problem(self, row: Row) -> Problem:
        """`row.answer`: a text, or with `row.options` the text or letter of one of them.

        Raises:
            RowError: no question or answer, or an answer that is none of the options.
        """
        answer: str | Choice = text_answer(row)
        if row.options:
            index = choose(row.options, answer)
            if index is None:
                raise RowError(f"the answer {answer!r} is none of the options {row.options!r}")
            answer = Choice(options=row.options, answer=row.options[index])
        return Problem(
            id=row.id,
            domain="logic",
            question=question_of(row),
            answer=answer,
            images=row.images,
            source=row.source,
        )

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        """The verdict. A response that is one short line counts as the answer."""
        answer = final_answer(completion.text) or bare_answer(completion.text)
        if answer is None:
            return unparsable(completion.text)
        gold = problem.answer
        if isinstance(gold, Choice):
            index = choose(gold.options, answer)
            return judged(index is not None and gold.options[index] == gold.answer, answer)
        if not isinstance(gold, str):
            raise TypeError(f"{problem.id}: logic judges a text or a choice")
        roles = parse_assignment(gold)
        if roles is not None:
            return judged(same_assignment(roles, answer), answer)
        if parse_number(gold) is not None:
            return judged(same_number(gold, answer), answer)
        return judged(same_text(gold, answer), answer)
