r"""One way to write math: ASCII and LaTeX for Unicode signs, no dollars, numbers without commas.

one_alphabet("x\u00b2 \u2264 \u00bd") -> "x^{2} \\le \\frac{1}{2}"
"""

from __future__ import annotations

import re
import unicodedata

from vlrl.grading.response import clean

_UNICODE = {
    ord(sign): f"{latex} "
    for sign, latex in {
        "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u2217": "*", "\u00f7": "/", "\u2044": "/",
        "\u2215": "/", "\u2264": "\\le", "\u2265": "\\ge", "\u2260": "\\ne", "\u221a": "\\sqrt",
        "\u03c0": "\\pi", "\u221e": "\\infty", "\u00b1": "\\pm", "\u2213": "\\mp",
        "\u00b0": "\\degree", "\u222a": "\\cup", "\u2208": "\\in", "\u2205": "\\emptyset",
        "\u2248": "\\approx", "\u03b1": "\\alpha", "\u03b2": "\\beta", "\u03b3": "\\gamma",
        "\u03b8": "\\theta", "\u03bb": "\\lambda", "\u03bc": "\\mu", "\u03c6": "\\phi",
        "\u03c9": "\\omega", "\u0394": "\\Delta", "\u2032": "'", "\u27e8": "\\langle",
        "\u27e9": "\\rangle", "\u230a": "\\lfloor", "\u230b": "\\rfloor", "\u2211": "\\sum",
        "\u222b": "\\int", "\u211d": "\\mathbb{R}",
    }.items()
}  # fmt: skip
_BEFORE_NFKC = {
    0xBA: "\u00b0",
    0x2DA: "\u00b0",
    0x221B: "\\sqrt[3]",
    0x221C: "\\sqrt[4]",
    0x211D: "\\mathbb{R}",
}
"""Signs that NFKC would turn into letters; roots."""
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f\u2071"
_SUPERSCRIPT = re.compile(f"[{_RAISED}]{{1,40}}")
_SUBSCRIPT = re.compile("[\u2080-\u2089]{1,40}")
_TEMPERATURE = re.compile("\u00b0 ?([CF])(?![a-zA-Z])")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_CROSS = re.compile(r"(?<=[0-9]) ?[xX] ?(?=10\^)")
_GROUPED = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:(?:\{,\}|,\\!|\\,|,)[0-9]{3}){1,40}(?![0-9])")
_SURE_GROUPS = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:(?:\{,\}|,\\!|\\,)[0-9]{3}){1,40}(?![0-9])")
_BLANK_GROUPS = re.compile(r"[+-]?[0-9]{1,3}(?: [0-9]{3}){1,40}(?![0-9])")
_CHOOSE = re.compile(r"\{([^{}]{1,60})\\choose(?![a-zA-Z])([^{}]{1,60})\}")
_SET_BUILDER = re.compile(
    r"(?:\\left ?)?\\\{[ ]{0,9}([a-zA-Z])[ ]{0,9}(?:\\in ?\\mathbb\{R\}[ ]{0,9})?(?:\\[,;:] ?)?"
    r"(?:\\mid(?![a-z])|\\vert(?![a-z])|\\middle ?\||:|\|)(?:\\[,;:])?(.{1,200}?)(?:\\right ?)?\\\}"
)
_OVER = re.compile(r"\{([^{}]{1,60})\\over(?![a-zA-Z])([^{}]{1,60})\}")
_CLOCK = re.compile(r"(?<=[0-9]) ?([apAP])\.?[mM](?![a-zA-Z])\.?")
_WHOLE_TEXT = re.compile(
    r"\\(?:text|mathrm|textrm|mbox|textbf|mathbf|boxed|fbox|textit|textnormal)\s?\{([^{}]{0,200})\}"
)


def unwrapped(text: str) -> str:
    """Without dollars, display marks and one text command around the whole."""
    for _ in range(4):
        before = text
        text = text.strip()
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            if len(text) > len(opening + closing) and text.startswith(opening):
                inner = text[len(opening) : -len(closing)]
                if text.endswith(closing) and opening not in inner.replace("\\$", ""):
                    text = inner.strip()
        match = _WHOLE_TEXT.fullmatch(text)
        if match and _is_expression(match[1]):
            text = match[1].strip()
        if text == before:
            break
    return text


def _is_expression(text: str) -> bool:
    """Whether the inside of a text command is to be read, not taken as words."""
    words = text.split()
    return len(text) < 2 or not "".join(words).isalpha() or "and" in words or "or" in words


def one_alphabet(text: str) -> str:
    """ASCII and LaTeX for the Unicode ways to write math; what is left over is unknown."""
    if not text.isascii():
        text = _VULGAR.sub(_vulgar, text)
        text = _SUPERSCRIPT.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
        text = _SUBSCRIPT.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", text)
        text = _TEMPERATURE.sub(r"^\\circ\\text{\1}", clean(text.translate(_BEFORE_NFKC)))
        text = text.translate(_UNICODE).replace("\\degree ", "\\degree")
    else:
        text = clean(text)
    if "\\choose" in text:
        text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    if "\\over" in text:
        text = _OVER.sub(r"\\frac{\1}{\2}", text)
    if "10^" in text:
        text = _CROSS.sub("*", text)
    if ":" in text:
        text = _CLOCK.sub(r"\\text{\1m}", text)
    match = _SET_BUILDER.fullmatch(text.strip(" $")) if "\\{" in text else None
    if match and match[1] in match[2]:  # the condition alone: an inequality is its interval
        text = match[2].strip()
    return text.replace("**", "^")


def _vulgar(match: re.Match[str]) -> str:
    over, _, under = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return f"\\frac{{{over}}}{{{under}}}"


def join_groups(text: str, grouped: bool) -> str:
    """`1{,}234` and `1\\,234` -> 1234; with `grouped` `1,234` too, outside of brackets."""
    if "," in text:
        plain = grouped and not any(bracket in text for bracket in "([")
        pattern = _GROUPED if plain and "\\{" not in text else _SURE_GROUPS
        text = pattern.sub(lambda m: re.sub("[^0-9]", "", m[0]), text)
    if " " in text and _BLANK_GROUPS.fullmatch(text):
        text = text.replace(" ", "")
    return text
