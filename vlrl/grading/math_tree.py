r"""Expressions as trees, by a bounded recursive descent over tokens.

`\frac{1}{2}x` -> Apply("mul", (Apply("div", (1, 2)), Symbol("x"))). What the grammar doesn't hold
(sums, integrals, limits, unknown commands, `f(x)`) is no tree: None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from vlrl.grading.math_tokens import FUNCTIONS, Kind, Token

MAX_DEPTH = 24
MAX_POSTFIX = 4
"""Powers, factorials and so on after one factor; divisions in one product."""
MAX_DIGITS = 400
MAX_EXPONENT = 400


@dataclass(frozen=True, slots=True)
class Number:
    """A literal, exact."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, or one of the constants pi, e, i and infty."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """`add mul div pow neg root log fact binom abs floor ceil pm mp deg` or a function's name."""

    op: str
    args: tuple[Node, ...]


Node = Number | Symbol | Apply
CONSTANTS = frozenset({"pi", "e", "i", "infty"})
_CLOSING = {"(": ")", "{": "}", "[": "]", "<(": ")>"}
_UNKNOWN_FUNCTIONS = frozenset("fgFG")


class _NoTree(Exception):
    """The tokens are no expression of this grammar."""


def tree_of(tokens: Sequence[Token]) -> Node | None:
    """The expression that all the tokens make up, or None."""
    if not tokens:
        return None
    parser = _Parser(tokens)
    try:
        node = parser.sum()
    except _NoTree:
        return None
    return node if parser.place == len(tokens) else None


def number_of(text: str) -> Fraction | None:
    """`12.5`, `.5`, `6.02e23`, `0.1(6)` as written by the tokenizer; None past the bounds."""
    literal, _, repeating = text.rstrip(")").partition("(")
    digits, _, exponent = literal.lower().partition("e")
    if len(digits) > MAX_DIGITS or abs(int(exponent or 0)) > MAX_EXPONENT:
        return None
    whole, _, part = digits.partition(".")
    value = Fraction(int((whole + part) or 0), 10 ** len(part))
    if repeating:
        value += Fraction(int(repeating), (10 ** len(repeating) - 1) * 10 ** len(part))
    return value * Fraction(10) ** int(exponent) if exponent else value


class _Parser:
    """One pass over the tokens; `place` is the next one."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._depth = 0
        self.place = 0

    def sum(self) -> Node:
        self._deeper()
        terms = [self._signed()]
        while self._peek() in ("+", "-", "+-", "-+"):
            terms.append(self._signed())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else Apply("add", tuple(terms))

    def _signed(self) -> Node:
        sign = self._peek()
        if sign in ("+", "-", "+-", "-+"):
            self.place += 1
            term = self._product()
            if isinstance(term, Number) and sign == "-":
                return Number(-term.value)
            ops = {"-": "neg", "+-": "pm", "-+": "mp"}
            return term if sign == "+" else Apply(ops[sign], (term,))
        return self._product()

    def _product(self) -> Node:
        node = self._power()
        factors: list[Node] = [node]
        num_divisions = 0
        while True:
            sign = self._peek()
            if sign == "*":
                self.place += 1
                factors.append(self._maybe_negative())
            elif sign == "/":
                self.place += 1
                num_divisions += 1
                if num_divisions > MAX_POSTFIX:
                    raise _NoTree
                over = factors[0] if len(factors) == 1 else Apply("mul", tuple(factors))
                factors = [Apply("div", (over, self._maybe_negative()))]
            elif self.place < len(self._tokens) and (
                self._starts_factor() or self._starts_power(factors[-1])
            ):
                factor = self._power()
                mixed = _mixed(factors, factor, self._tokens[self.place - 1])
                factors = [mixed] if mixed else [*factors, factor]
            else:
                return factors[0] if len(factors) == 1 else Apply("mul", tuple(factors))

    def _maybe_negative(self) -> Node:
        if self._peek() == "-":
            self.place += 1
            return Apply("neg", (self._power(),))
        return self._power()

    def _starts_factor(self) -> bool:
        """Whether a product goes on without a sign; a number can't: `4 2` is two numbers."""
        token = self._tokens[self.place]
        if token.kind is Kind.NAME:
            return True
        if token.kind is Kind.COMMAND:
            return token.text not in ("rfloor", "rceil", "infty", "overline", "emptyset")
        return token.kind is Kind.SIGN and token.text in ("(", "{", "[")

    def _starts_power(self, last: Node) -> bool:
        """The 13 of `2^{12} 13^2`."""
        power = isinstance(last, Apply) and last.op == "pow"
        if not power or self._tokens[self.place].kind is not Kind.NUMBER:
            return False
        after = self._tokens[self.place + 1 : self.place + 2]
        return bool(after) and after[0].text == "^" and after[0].kind is Kind.SIGN

    def _power(self) -> Node:
        node = self._base()
        for _ in range(MAX_POSTFIX):
            sign = self._peek()
            if sign == "^":
                self.place += 1
                if self._degree_follows():
                    node = Apply("deg", (node,))
                    continue
                node = Apply("pow", (node, self._exponent()))
                if self._peek() == "^":
                    raise _NoTree  # a^b^c without braces
            elif sign == "!":
                self.place += 1
                node = Apply("fact", (node,))
            elif sign == "%":
                self.place += 1
                node = Apply("div", (node, Number(Fraction(100))))
            elif sign == "deg":
                self.place += 1
                node = Apply("deg", (node,))
            else:
                return node
        raise _NoTree

    def _degree_follows(self) -> bool:
        for shape in (["deg"], ["{", "deg", "}"]):
            if [t.text for t in self._tokens[self.place : self.place + len(shape)]] == shape:
                self.place += len(shape)
                return True
        return False

    def _exponent(self) -> Node:
        if self._peek() == "{":
            return self._bracketed("{")
        if self._peek() == "-":
            self.place += 1
            return Apply("neg", (self._exponent(),))
        return self._base()

    def _base(self) -> Node:
        if self.place >= len(self._tokens):
            raise _NoTree
        token = self._tokens[self.place]
        self.place += 1
        if token.kind is Kind.NUMBER:
            value = number_of(token.text)
            if value is None or self._peek() == "_":
                raise _NoTree
            return Number(value)
        if token.kind is Kind.NAME:
            if token.text in _UNKNOWN_FUNCTIONS and self._peek() == "(":
                raise _NoTree
            return Symbol(token.text)
        if token.kind is Kind.COMMAND:
            return self._command(token.text)
        if token.kind is Kind.SIGN and token.text in ("(", "{", "["):
            self.place -= 1
            return self._bracketed(token.text)
        if token.text == "|" and token.kind is Kind.SIGN:
            inside = self.sum()
            self._expect("|")
            return Apply("abs", (inside,))
        raise _NoTree

    def _bracketed(self, opening: str) -> Node:
        self._expect(opening)
        inside = self.sum()
        self._expect(_CLOSING[opening])
        return inside

    def _argument(self) -> Node:
        """One argument of a LaTeX command: a group, a digit, a name, a command."""
        if self._peek() == "{":
            return self._bracketed("{")
        token = self._tokens[self.place] if self.place < len(self._tokens) else None
        if token is not None and token.kind is Kind.NUMBER and len(token.text) > 1:
            raise _NoTree  # LaTeX would take the first digit only
        return self._base()

    def _command(self, name: str) -> Node:
        self._deeper()
        node = self._structure(name)
        self._depth -= 1
        return node

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _NoTree

    def _structure(self, name: str) -> Node:
        if name in ("pi", "infty"):
            return Symbol(name)
        if name == "frac":
            return self._fraction()
        if name == "binom":
            return Apply("binom", (self._argument(), self._argument()))
        if name == "sqrt":
            return self._root()
        if name in ("lfloor", "lceil"):
            inside = self.sum()
            self._expect("r" + name[1:])
            return Apply(name[1:], (inside,))
        if name == "mathbb":
            inside = self._argument()
            if isinstance(inside, Symbol):
                return Symbol(f"{inside.name}_set")
        if name in FUNCTIONS:
            return self._function(name)
        raise _NoTree

    def _fraction(self) -> Node:
        token = self._tokens[self.place] if self.place < len(self._tokens) else None
        if token is not None and token.kind is Kind.NUMBER:
            digits = token.text
            if not digits.isdigit():
                raise _NoTree
            self.place += 1
            over = Number(Fraction(int(digits[0])))
            if len(digits) == 2:  # \frac12
                return Apply("div", (over, Number(Fraction(int(digits[1])))))
            if len(digits) > 2:
                raise _NoTree
            return Apply("div", (over, self._under()))
        return Apply("div", (self._argument(), self._under()))

    def _under(self) -> Node:
        """`\\frac{1}7`: a single digit, or an argument."""
        token = self._tokens[self.place] if self.place < len(self._tokens) else None
        if token is not None and token.kind is Kind.NUMBER and token.text.isdigit():
            if len(token.text) > 1:
                raise _NoTree
            self.place += 1
            return Number(Fraction(int(token.text)))
        return self._argument()

    def _root(self) -> Node:
        index: Node = Number(Fraction(2))
        if self._peek() == "[":
            index = self._bracketed("[")
        token = self._tokens[self.place] if self.place < len(self._tokens) else None
        if token is not None and token.kind is Kind.NUMBER:
            self.place += 1
            value = number_of(token.text)
            if value is None:
                raise _NoTree
            return Apply("root", (index, Number(value)))
        return Apply("root", (index, self._base()))

    def _function(self, name: str) -> Node:
        base = exponent = None
        while self._peek() in ("_", "^"):
            sign = self._peek()
            self.place += 1
            part = self._exponent()
            if sign == "_" and name == "log" and base is None:
                base = part
            elif sign == "^" and exponent is None:
                exponent = part
            else:
                raise _NoTree
        if exponent == Number(Fraction(-1)) or exponent == Apply("neg", (Number(Fraction(1)),)):
            if name not in ("sin", "cos", "tan"):
                raise _NoTree
            name, exponent = f"arc{name}", None
        inside = self._function_argument()
        node = Apply("log", (base, inside)) if base is not None else Apply(name, (inside,))
        return node if exponent is None else Apply("pow", (node, exponent))

    def _function_argument(self) -> Node:
        """In brackets, or `2x` of `\\sin 2x \\cos x`: up to a sign or the next function."""
        if self._peek() in ("(", "{", "["):
            node = self._bracketed(self._peek())
            return node
        self._deeper()
        if self._peek() == "-":
            self.place += 1
            node: Node = Apply("neg", (self._power(),))
        else:
            node = self._power()
        factors = [node]
        while self.place < len(self._tokens) and self._starts_factor():
            token = self._tokens[self.place]
            if token.text in FUNCTIONS - {"sqrt"} or token.text in ("(", "["):
                break
            factors.append(self._power())
        self._depth -= 1
        return factors[0] if len(factors) == 1 else Apply("mul", tuple(factors))

    def _peek(self) -> str:
        """The next sign, else ''."""
        if self.place < len(self._tokens):
            token = self._tokens[self.place]
            if token.kind is Kind.SIGN:
                return token.text
        return ""

    def _expect(self, text: str) -> None:
        if self.place >= len(self._tokens) or self._tokens[self.place].text != text:
            raise _NoTree
        self.place += 1


def _mixed(factors: list[Node], factor: Node, last: Token) -> Node | None:
    """`1\\frac{1}{2}` is a sum."""
    if len(factors) == 1 and isinstance(factors[0], Number) and isinstance(factor, Apply):
        whole, (over, under) = factors[0].value, (*factor.args, None)[:2]
        plain = isinstance(over, Number) and isinstance(under, Number)
        if factor.op == "div" and plain and whole.denominator == 1 and last.text != ")":
            assert isinstance(over, Number) and isinstance(under, Number)
            if over.value.denominator == under.value.denominator == 1 and under.value > 0:
                return Number(whole + over.value / under.value)
    return None
