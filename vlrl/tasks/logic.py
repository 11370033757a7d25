"""logic: puzzles whose answer is a short text, an option, or who is what (knights and knaves)."""

from __future__ import annotations

from vlrl.grading.assignment import parse_assignment, same_assignment
from vlrl.grading.number import parse_number, same_number
from vlrl.grading.response import bare_answer, final_answer
from vlrl.grading.text import same_text
from vlrl.tasks.base import Row
from vlrl.tasks.common import checked, gold_of, judged, question_of, unparsable, verdict_by_gold
from vlrl.types import Completion, Problem, Verdict


class Logic:
    """One answer, as asked: nothing is simplified or evaluated."""

    def problem(self, row: Row) -> Problem:
        """`row.answer`: a text, a form, or with `row.options` the text or letter of one of them.

        Raises:
            RowError: no question or answer, or an answer that can't be judged.
        """
        problem = Problem(
            id=row.id,
            domain="logic",
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
            raise TypeError(f"{problem.id}: logic judges a text, a choice or a form")
        roles = parse_assignment(gold)
        if roles is not None:
            return judged(same_assignment(roles, answer), answer)
        if parse_number(gold) is not None:
            return judged(same_number(gold, answer), answer)
        return judged(same_text(gold, answer), answer)
