r"""Math as a list of tokens: one spelling for LaTeX, plain text and Unicode signs.

tokens_of("$\\dfrac{1}{2}\\,x²$") -> frac { 1 } { 2 } x ^ { 2 }
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from vlrl.grading.math_spelling import join_groups, one_alphabet, unwrapped
from vlrl.grading.units import is_unit

MAX_CHARACTERS = 600
MAX_TOKENS = 300


class Kind(Enum):
    """What a token is."""

    NUMBER = "number"  # digits as written; a repeating part in parentheses
    NAME = "name"  # a variable, with its subscript and primes
    WORD = "word"  # text, or a run of letters that is no product
    COMMAND = "command"  # a function, constant or structure, by its LaTeX name
    SIGN = "sign"  # operators, brackets, relations, separators
    UNKNOWN = "unknown"  # what no rule here reads


class Token(NamedTuple):
    """`Token(Kind.NAME, "x_1")`; `spaced` says that a blank stood before it."""

    kind: Kind
    text: str
    spaced: bool = False


GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "varrho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "hbar",
    ]
)
FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "ln",
        "log",
        "lg",
        "exp",
        "sqrt",
    ]
)
SHORT_WORDS = frozenset({"yes", "no", "odd", "one", "two", "six", "ten", "all", "not", "red"})
"""Words of two or three letters that are answers; other such runs are products of variables."""
_SYNONYMS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("cdot", "times", "ast", "cdotp", "bullet"), "*"),
    **dict.fromkeys(("log_10",), "lg"),
    "div": "/", "colon": ":", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|",
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=",
    "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "pm": "+-", "mp": "-+", "in": "in",
    "approx": "~=", "simeq": "~=", "lbrace": "\\{", "rbrace": "\\}", "cup": "cup", "bigcup": "cup",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "langle": "<(", "rangle": ")>", "degree": "deg", "circ": "deg", "backslash": "\\",
    "infinity": "infty", "inf": "infty", "emptyset": "emptyset", "varnothing": "emptyset",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "Pi": "Pi", "land": "or", "lor": "or",
}  # fmt: skip
_SIGNS = frozenset(
    [
        "*",
        "/",
        ":",
        "|",
        "<=",
        ">=",
        "<",
        ">",
        "!=",
        "+-",
        "-+",
        "in",
        "~=",
        "\\{",
        "\\}",
        "cup",
        "[",
        "]",
        "(",
        ")",
        "<(",
        ")>",
        "deg",
        "or",
    ]
)
_KNOWN = FUNCTIONS | {"frac", "binom", "pi", "infty", "emptyset", "lfloor", "rfloor", "lceil"}
_COMMANDS = _KNOWN | {"rceil", "mathbb", "overline", "cup"}
_SILENT = frozenset(
    [
        "left",
        "right",
        "big",
        "Big",
        "bigg",
        "Bigg",
        "bigl",
        "bigr",
        "Bigl",
        "Bigr",
        "bf",
        "rm",
        "large",
        "Large",
        "underline",
        "mathsf",
        "displaystyle",
        "textstyle",
        "limits",
        "quad",
        "qquad",
        "mathbf",
        "boldsymbol",
        "vec",
        "mathit",
        "bm",
        "thinspace",
        "enspace",
        "hfill",
        "space",
        "overrightarrow",
        "therefore",
    ]
)
_SCAN = re.compile(
    r"(?P<blank>(?:\s|~|\\[ ,;:!>])+)"
    r"|(?P<number>(?:[0-9]{1,400}(?:\.(?![.0-9]*\.)[0-9]{0,400})?|\.[0-9]{1,400})"
    r"(?:[eE][+-]?[0-9]{1,4}(?![0-9.a-zA-Z]))?)"
    r"|\\(?:text|mbox|textrm|textbf|textit|mathrm|textnormal|rm|mathsf|texttt)\s?"
    r"\{(?P<text>[^{}]{0,200}(?:\^\{[0-9]\}[^{}]{0,50})?)\}"
    r"|(?P<matrix>\\(?:begin|end)\{[a-zA-Z]{1,9}\}(?:\{[lcr|]{1,9}\})?)"
    r"|(?P<row>\\\\)"
    r"|(?P<null>\\(?:left|right)\.)"
    r"|\\(?P<command>[a-zA-Z]{1,30})"
    r"|\\(?P<escaped>[{}|%$#_&])"
    r"|(?P<letters>[a-zA-Z]{1,60})"
    r"|(?P<pair><=|>=|!=)"
    r"|(?P<sign>.)",
    re.DOTALL,
)
_REPEATING = re.compile(r"\\(?:overline|bar|dot)\s?\{?([0-9]{1,40})\}?")
_INDEX = re.compile(r"_(?:\{([a-zA-Z0-9,]{1,20})\}|\{\\text\{([a-z]{1,20})\}\}|([a-zA-Z0-9]))")
_PRIMES = re.compile("'{1,3}|\\^\\{?\\\\prime\\}?")


def tokens_of(text: str, *, grouped: bool = True) -> tuple[Token, ...] | None:
    """The tokens; None if the text is too long or has control characters.

    `grouped`: `1,234` outside of brackets is one number, not a list of two.
    """
    if len(text) > MAX_CHARACTERS or "\0" in text:
        return None
    text = one_alphabet(text)
    text = join_groups(unwrapped(text), grouped)
    tokens: list[Token] = []
    position, spaced = 0, False
    while position < len(text):
        match = _SCAN.match(text, position)
        if match is None or len(tokens) > MAX_TOKENS:
            return None
        position = match.end()
        kind = match.lastgroup or ""
        if kind in ("blank", "null"):
            spaced = True
            continue
        before = len(tokens)
        position = _add(tokens, kind, match[kind], text, position)
        if spaced and len(tokens) > before:
            tokens[before] = tokens[before]._replace(spaced=True)
        spaced = False
    while tokens and tokens[-1].text in (".", ",", ";") and tokens[-1].kind is Kind.SIGN:
        tokens.pop()
    return tuple(tokens)


def _add(tokens: list[Token], kind: str, found: str, text: str, position: int) -> int:
    """Adds what was found; where the next token begins."""
    if kind == "number":
        repeating = _REPEATING.match(text, position) if "." in found else None
        tokens.append(Token(Kind.NUMBER, f"{found}({repeating[1]})" if repeating else found))
        return repeating.end() if repeating else position
    if kind == "letters":
        return _letters(tokens, found, text, position)
    if kind == "command":
        return _command(tokens, found, text, position)
    if kind == "text":
        words = found.strip()
        if words in ("or", "and", ",", "and/or", ", and", ", or", "or,"):
            tokens.append(Token(Kind.SIGN, "or"))
        elif words in FUNCTIONS:
            tokens.append(Token(Kind.COMMAND, words))
        elif words in ("i", "e") or (
            len(words) == 1
            and words.isalpha()
            and not (_follows_value(tokens) or _follows_degrees(tokens))
        ):
            tokens.append(Token(Kind.NAME, words))
        elif words:
            tokens.append(Token(Kind.WORD, words))
    elif kind == "escaped":
        tokens.append(Token(Kind.SIGN, {"{": "\\{", "}": "\\}"}.get(found, found)))
    elif kind in ("matrix", "row", "pair"):
        tokens.append(Token(Kind.SIGN, found))
    else:
        known = found in "+-*/^!%=<>()[]{}|,;:.&$_"
        tokens.append(Token(Kind.SIGN if known else Kind.UNKNOWN, found))
    return position


def _letters(tokens: list[Token], run: str, text: str, position: int) -> int:
    if run in ("or", "and"):
        tokens.append(Token(Kind.SIGN, "or"))
    elif run in FUNCTIONS or run in ("pi", "inf", "infinity", "asin", "acos", "atan"):
        tokens.append(Token(Kind.COMMAND, _SYNONYMS.get(run, run)))
    elif (run in ("C", "F") and _follows_degrees(tokens)) or (
        len(run) > 1
        and (
            len(run) > 3
            or run.casefold() in SHORT_WORDS
            or (_follows_value(tokens) and is_unit(run))
        )
    ):
        tokens.append(Token(Kind.WORD, run))
    else:
        tokens += [Token(Kind.NAME, letter) for letter in run[:-1]]
        return _name(tokens, run[-1], text, position)
    return position


def _command(tokens: list[Token], name: str, text: str, position: int) -> int:
    if name in _SILENT:
        return position
    if name in GREEK:
        return _name(tokens, name, text, position)
    name = _SYNONYMS.get(name, name)
    if name in _SIGNS:
        tokens.append(Token(Kind.SIGN, name))
    elif name in _COMMANDS:
        tokens.append(Token(Kind.COMMAND, name))
    else:
        tokens.append(Token(Kind.UNKNOWN, name))
    return position


def _name(tokens: list[Token], name: str, text: str, position: int) -> int:
    """A variable with what belongs to its name: `x_1`, `f'`."""
    index = _INDEX.match(text, position)
    if index:
        name += "_" + (index[1] or index[2] or index[3])
        position = index.end()
    primes = _PRIMES.match(text, position)
    if primes:
        name += "'"
        position = primes.end()
    tokens.append(Token(Kind.NAME, name))
    return position


def _follows_value(tokens: list[Token]) -> bool:
    return bool(tokens) and (tokens[-1].kind is Kind.NUMBER or tokens[-1].text in (")", "}"))


def _follows_degrees(tokens: list[Token]) -> bool:
    """After `^\\circ` or `^{\\circ}`."""
    texts = [token.text for token in tokens[-2:]]
    return texts[-1:] == ["deg"] or texts == ["deg", "}"]
