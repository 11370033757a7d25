r"""The parts of a reward besides the verdict: what a response looks like, not whether it is right.

`boxed` and `think` are 1 or 0; `overlong` and `language` are penalties from 0 to -1. All are pure,
linear in the text, and know no gold answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from vlrl.rewards.language import mismatch
from vlrl.rewards.rules import Rule
from vlrl.types import Completion, Finish, Problem

Part = Callable[[Problem, Completion, Rule], float]

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])[ \t]{0,8}(\{?)")
_OPEN, _CLOSE = "<think>", "</think>"


def count_boxes(response: str) -> int:
    """How many boxes follow the reasoning, closed or not."""
    return sum(1 for _ in _BOX.finditer(_answer_part(response)))


def boxed(problem: Problem, completion: Completion, rule: Rule) -> float:
    """1 for exactly one box after the reasoning, closed and not empty."""
    text = _answer_part(completion.text)
    boxes = list(_BOX.finditer(text))
    if len(boxes) != 1 or not boxes[0][1]:
        return 0.0
    depth, escaped = 1, False
    for position in range(boxes[0].end(), len(text)):
        character = text[position]
        if escaped or character == "\\":
            escaped = not escaped
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return float(bool(text[boxes[0].end() : position].strip()))
    return 0.0


def think(problem: Problem, completion: Completion, rule: Rule) -> float:
    """1 for reasoning, one `</think>` and an answer; `<think>` may stand in the prompt already."""
    text = completion.text.strip().removeprefix(_OPEN)
    reasoning, close, answer = text.partition(_CLOSE)
    again = _OPEN in text or _CLOSE in answer
    return float(bool(close and reasoning.strip() and answer.strip()) and not again)


def overlong(problem: Problem, completion: Completion, rule: Rule) -> float:
    """Soft overlong punishment: DAPO (arXiv 2503.14476), equation 13.

    0 up to the buffer before `rule.max_tokens`, then linear to -1; -1 if cut off there.
    """
    if completion.finish is Finish.LENGTH:
        return -1.0
    over = len(completion.token_ids) - (rule.max_tokens - rule.overlong_buffer)
    return 0.0 - min(1.0, max(0, over) / rule.overlong_buffer)


def language(problem: Problem, completion: Completion, rule: Rule) -> float:
    """-1 for a response in another script than the question's (see language.py)."""
    return -1.0 if mismatch(problem.question, completion.text) else 0.0


PARTS: Mapping[str, Part] = {
    "boxed": boxed,
    "think": think,
    "overlong": overlong,
    "language": language,
}


def _answer_part(response: str) -> str:
    """What follows the reasoning; nothing if that never ends."""
    text = response.rpartition(_CLOSE)[2]
    return "" if _OPEN in text else text
