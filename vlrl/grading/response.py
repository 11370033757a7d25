r"""Where the final answer of a response stands.

Only text after `</think>` counts, and an unclosed `<think>` has no answer. The last `\boxed{}` (or
`\fbox{}`) counts; if that one is empty or unclosed there is no answer. Without a box: the last
`<answer>` tag, or the last explicit statement ("The answer is 5", "Answer: 5", "#### 5"). A number
in prose is no answer. Every scan is linear and looks at the last `MAX_TAIL` characters only.
"""

from __future__ import annotations

import re
import unicodedata

MAX_TAIL = 1 << 15
MAX_ANSWER = 2000
MAX_LINE = 300

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_STATEMENT = re.compile(
    r"(?:\b(?:final |correct |right )?(?:answer|option|choice) ?(?:is|are|would be|must be|:|=)"
    r"(?![a-zA-Z]) ?:?|\bI (?:choose|pick|select)\b"
    r"|^[#*]{1,6} ?(?:final )?answer[*:]{0,4}[ \t]{0,9}\n"
    r"|\banswer\*{1,2}:|\banswer:\*{1,2}|####|答案(?:是|为|:|\uff1a)|选(?:择|项)?(?:是|:|\uff1a)?)",
    re.IGNORECASE | re.MULTILINE,
)
_NEGATED = re.compile(r"\s{0,4}(?:not\b|n't\b|neither\b|unknown\b|不)", re.IGNORECASE)
_REASON = re.compile(
    r",? (?:because|since|as|so that|which|but|and not|rather than)\b|, not\b|[。\uff1b]"
)
_FILLER = re.compile(
    r"\A(?:therefore|thus|hence|exactly|simply|just|indeed|clearly|equal to|given by),? {1,3}"
)
_WITHDRAWN = re.compile(
    r"[ .*]{0,9}(?:no\b|nope\b|sorry\b|oops\b|scratch that|correction\b|wait,? no\b"
    r"|actually,? (?:no\b|it is |it's |[-$\\0-9]))",
    re.IGNORECASE,
)
_OR_ANOTHER = re.compile(r"\}[\s$]{0,9}(?:\\text\{)?\s{0,9}or\s{0,9}\}?[\s$]{0,9}\Z")
_LEAD = re.compile(
    r"\s{0,9}(\\text\{\s{0,9})?(?:the )?(?:final |correct )?answer ?(?:is|:)(?![a-z])[: ]{0,3}"
    r"(\})?",
    re.IGNORECASE,
)
_END_TOKENS = ("</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>")
_ZERO_WIDTH = {ord(c): None for c in "\u200b\u200c\u200d\u2060\ufeff"}


def final_answer(response: str) -> str | None:
    """The text of the answer that a response commits itself to; None if it does to none."""
    text = _after_reasoning(response)
    if text is None:
        return None
    last_box, several = None, False
    for match in _BOX.finditer(text):
        last_box, several = match, last_box is not None
    if last_box is not None:
        start = last_box.start()
        if several and _OR_ANOTHER.search(text, max(0, start - 40), start):
            return None  # `\\boxed{4} or \\boxed{5}`
        return _some(_without_lead(_braced(text, last_box.end())))
    tagged = _last_tag(text)
    if tagged is not None:
        return _some(_without_lead(tagged))
    return _last_statement(text)


def bare_answer(response: str) -> str | None:
    """The whole response, if it is one short line without any of the marks of `final_answer`."""
    text = (_after_reasoning(response) or "").strip()
    if not text or "\n" in text or len(text) > MAX_LINE:
        return None
    if _BOX.search(text) or "<answer>" in text or _STATEMENT.search(text):
        return None
    return _some(text)


def whole_answer(response: str) -> str | None:
    """The last box's or tag's contents, else all that follows the reasoning: for JSON and boxes."""
    text = _after_reasoning(response)
    if text is None:
        return None
    if _BOX.search(text) or "<answer>" in text:
        return final_answer(text)
    return text.strip() or None


def clean(text: str) -> str:
    """NFKC, no zero-width characters, one kind of minus and quotes, no markdown around it."""
    text = unicodedata.normalize("NFKC", text[:MAX_ANSWER]).translate(_ZERO_WIDTH)
    text = text.replace("\u2212", "-").replace("\u2013", "-")
    text = text.replace("\u2018", "'").replace("\u2019", "'")
    text = text.replace("\u201c", '"').replace("\u201d", '"').strip().rstrip("\u3002")
    for mark in ("**", "__", "`", '"', "'", "*", "_"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = text[len(mark) : -len(mark)].strip()
    return text


def _after_reasoning(response: str) -> str | None:
    """What follows the reasoning; None if the reasoning never ends."""
    end = response.rfind("</think>")
    if response.find("<think>", max(end, 0)) >= 0:
        return None
    text = response[end + len("</think>") :] if end >= 0 else response
    text = text[-MAX_TAIL:].rstrip()
    for token in _END_TOKENS:
        text = text.removesuffix(token)
    return text


def _without_lead(answer: str | None) -> str | None:
    """`The answer is 5` in a box or tag -> 5."""
    match = _LEAD.match(answer or "")
    if answer is None or match is None or (match[2] and not match[1]):
        return answer
    return (match[1] if match[1] and not match[2] else "") + answer[match.end() :]


def _some(text: str | None) -> str | None:
    if text is None or len(text) > MAX_ANSWER:
        return None
    # A backslash at the end was LaTeX's space, whose blank is stripped: `10\ `.
    return text.strip().rstrip("\\").strip() or None


def _braced(text: str, start: int) -> str | None:
    """Contents of the braces that open at `start`, blanks before them allowed."""
    while start < len(text) and text[start] in " \t\n":
        start += 1
    if start >= len(text) or text[start] != "{":
        return None
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start + 1 : position]
        position += 1
    return None


def _last_tag(text: str) -> str | None:
    start = text.rfind("<answer>")
    if start < 0:
        return None
    start += len("<answer>")
    end = text.find("</answer>", start)
    return text[start:end] if end >= 0 else ""


def _last_statement(text: str) -> str | None:
    last = None
    for match in _STATEMENT.finditer(text):
        last = match
    if last is None:
        return None
    rest = text[last.end() : last.end() + MAX_ANSWER].lstrip(" \t\n*")
    if _NEGATED.match(rest):
        return None
    rest = _FILLER.sub("", rest.lstrip(), count=1)
    if _NEGATED.match(rest):
        return None
    line = rest.split("\n", 1)[0]
    reason = _REASON.search(line)
    if reason:
        line = line[: reason.start()]
    whole, line = line, _sentence(line)
    if _WITHDRAWN.match(whole, len(line)):
        return None
    if line.endswith(("?", "\uff1f")):
        return None
    return _some(line.rstrip(" .!*,;。"))


def _sentence(line: str) -> str:
    """Up to the first full stop or question mark that ends a sentence."""
    for position, character in enumerate(line):
        after = line[position + 1 : position + 2]
        if character in ".!?\uff1f" and (after == "" or after in " *"):
            return line[: position + 1]
    return line
