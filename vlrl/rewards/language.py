r"""Whether a response is in another language than its question, as far as scripts tell.

The Qwen3-VL report (arXiv 2511.21631) has a penalty for responses in another language than the
prompt's. Here the script decides: English for Chinese or Russian is seen, English for French is
not. What counts is words: a run of letters of one script, or one Han, kana or Hangul character.
LaTeX, code, tags and single letters (x, n) are no words. The question's scripts are those of a
fifth of its words; a response mismatches if most of its words are in other scripts, or if a tenth
are in scripts that are neither the question's nor Latin, in which names and terms are written.
"""

from __future__ import annotations

import re
from collections import Counter

MAX_CHARACTERS = 1 << 16
MIN_WORDS = 8
"""Fewer words in a response, or none in the question: nothing can be told."""

_NO_WORDS = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]{0,500}`|\$[^$]{0,2000}\$|\\[a-zA-Z]{1,40}|<[^<>\n]{0,200}>",
    re.DOTALL,
)
_WORD = re.compile(
    r"(?P<latin>[A-Za-z\u00c0-\u024f\u1e00-\u1eff]{2,})"
    r"|(?P<kana>[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f])"
    r"|(?P<han>[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])"
    r"|(?P<hangul>[\uac00-\ud7af\u1100-\u11ff\u3130-\u318f])"
    r"|(?P<cyrillic>[\u0400-\u052f]{2,})"
    r"|(?P<greek>[\u0370-\u03ff\u1f00-\u1fff]{2,})"
    r"|(?P<arabic>[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefe]{2,})"
    r"|(?P<hebrew>[\u0590-\u05ff]{2,})"
    r"|(?P<indic>[\u0900-\u0dff]{2,})"
    r"|(?P<thai>[\u0e00-\u0e7f]{2,})"
    r"|(?P<georgian>[\u10a0-\u10ff]{2,})"
    r"|(?P<armenian>[\u0530-\u058f]{2,})"
    r"|(?P<ethiopic>[\u1200-\u139f]{2,})"
)


def mismatch(question: str, response: str) -> bool:
    """Whether the response is in scripts that the question is not in."""
    asked, said = words_by_script(question), words_by_script(response)
    total = sum(said.values())
    if total < MIN_WORDS or not asked:
        return False
    expected = {script for script, num in asked.items() if 5 * num >= sum(asked.values())}
    if "kana" in expected:  # Japanese is written in both
        expected.add("han")
    other = sum(num for script, num in said.items() if script not in expected)
    foreign = sum(num for script, num in said.items() if script not in expected | {"latin"})
    return 2 * other > total or 10 * foreign > total


def words_by_script(text: str) -> Counter[str]:
    """How many words of each script a text has."""
    words = _NO_WORDS.sub(" ", text[:MAX_CHARACTERS])
    return Counter(match.lastgroup or "" for match in _WORD.finditer(words))
