"""image_qa: a question about images; the answer is an option, a number, a word or LaTeX."""

from __future__ import annotations

from vlrl.grading.choice import choose
from vlrl.grading.math_answer import Match, same_answer
from vlrl.grading.number import parse_count, parse_number
from vlrl.grading.response import bare_answer, final_answer
from vlrl.grading.text import same_text
from vlrl.tasks.base import Row, RowError
from vlrl.tasks.common import judged, not_judged, question_of, text_answer, unparsable
from vlrl.types import Choice, Completion, Problem, Status, Verdict


class ImageQA:
    """One answer: the letter or text of an option, or a text that equals the gold's."""

    def problem(self, row: Row) -> Problem:
        """With `row.options`, `row.answer` is the text or the letter of one of them.

        Raises:
            RowError: no question or answer, or an answer that is none of the options.
        """
        answer = text_answer(row)
        return Problem(
            id=row.id,
            domain="image_qa",
            question=question_of(row),
            answer=_choice(row.options, answer) if row.options else answer,
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
            if index is None:
                return judged(False, answer, "names no option, or more than one")
            return judged(gold.options[index] == gold.answer, answer)
        if not isinstance(gold, str):
            raise TypeError(f"{problem.id}: image_qa judges a text or a choice")
        match = _same(gold, answer)
        if match is Match.TIMEOUT:
            return not_judged(Status.TIMEOUT, "comparing the answer took too long", answer)
        return judged(match is Match.SAME, answer)


def _choice(options: tuple[str, ...], answer: str) -> Choice:
    if any(not option.strip() for option in options):
        raise RowError(f"an option is empty: {options!r}")
    index = choose(options, answer)
    if index is None:
        raise RowError(f"the answer {answer!r} is none of the options {options!r}")
    return Choice(options=options, answer=options[index])


def _same(gold: str, answer: str) -> Match:
    """Text; else a count as digits or word; else, for a gold with digits or LaTeX, its value."""
    if same_text(gold, answer, articles=True):
        return Match.SAME
    if parse_number(gold) is not None and parse_count(answer) is not None:
        return Match.SAME if parse_number(gold) == parse_count(answer) else Match.DIFFERENT
    if any(c.isdigit() or c in "\\^" for c in gold):
        return same_answer(gold, answer)
    return Match.DIFFERENT
