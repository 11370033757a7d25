r"""Regular expressions in linear time, for answers that have a form: Thompson's construction.

`re` backtracks, and on `(a|a)*b` or `a*a*a*b` a short answer can take it hours. Here all states
are followed at once: at most states x characters steps. The dialect: literals, `.`, `[a-z]`,
`[^a-z]`, `\d \w \s \D \W \S`, escaped characters, groups, `|`, `* + ? {m} {m,} {m,n}`. What can't
be had in linear time (backreferences, look-around) and flags are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

MAX_STATES = 400
MAX_TEXT = 300
MAX_DEPTH = 20

Test = Callable[[str], bool]
_CLASSES: dict[str, Test] = {
    "d": lambda c: c in "0123456789",
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
    "D": lambda c: c not in "0123456789",
    "W": lambda c: not (c.isalnum() or c == "_"),
    "S": lambda c: not c.isspace(),
}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r"}


class PatternError(ValueError):
    """A pattern that is malformed, too big, or not of the dialect."""


@dataclass(frozen=True)
class _State:
    """Takes one character that passes `test` and goes on; without a test it goes on at once."""

    test: Test | None
    to: tuple[int, ...]


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text has the form; a text over MAX_TEXT characters never has.

    Raises:
        PatternError: the pattern isn't one of this dialect.
    """
    states = _compiled(pattern)
    if len(text) > MAX_TEXT:
        return False
    now = _closure(states, {0})
    for character in text:
        passed = [s for s in now if (test := states[s].test) and test(character)]
        after = {target for s in passed for target in states[s].to}
        now = _closure(states, after)
        if not now:
            return False
    return len(states) - 1 in now


def _closure(states: tuple[_State, ...], start: set[int]) -> set[int]:
    found, left = set(start), list(start)
    while left:
        state = states[left.pop()]
        if state.test is None:
            for target in state.to:
                if target not in found:
                    found.add(target)
                    left.append(target)
    return found


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> tuple[_State, ...]:
    return _Builder(pattern).build()


class _Builder:
    """Recursive descent over the pattern; each part is a piece of states from one end to another.

    A piece is (first, last) in `_states`; `last` has no way on yet. Repeats parse their part
    again, so that no piece is ever copied.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._place = 0
        self._depth = 0
        self._tests: list[Test | None] = []
        self._ways: list[list[int]] = []

    def build(self) -> tuple[_State, ...]:
        start = self._state()
        first, last = self._either()
        if self._place < len(self._pattern):
            raise PatternError(f"unbalanced {self._pattern[self._place]!r} in {self._pattern!r}")
        self._ways[start].append(first)
        end = self._state()
        self._ways[last].append(end)
        return tuple(
            _State(test, tuple(to)) for test, to in zip(self._tests, self._ways, strict=True)
        )

    def _state(self, test: Test | None = None) -> int:
        if len(self._tests) >= MAX_STATES:
            raise PatternError(f"{self._pattern!r} has more than {MAX_STATES} states")
        self._tests.append(test)
        self._ways.append([])
        return len(self._tests) - 1

    def _peek(self) -> str:
        return self._pattern[self._place : self._place + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise PatternError(f"{self._pattern!r} ends too early")
        self._place += 1
        return character

    def _either(self) -> tuple[int, int]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise PatternError(f"{self._pattern!r} nests too deep")
        start, end = self._state(), self._state()
        while True:
            first, last = self._sequence()
            self._ways[start].append(first)
            self._ways[last].append(end)
            if self._peek() != "|":
                self._depth -= 1
                return start, end
            self._take()

    def _sequence(self) -> tuple[int, int]:
        start = last = self._state()
        while self._peek() not in ("", "|", ")"):
            first, end = self._repeated()
            self._ways[last].append(first)
            last = end
        return start, last

    def _repeated(self) -> tuple[int, int]:
        begin = self._place
        piece = self._atom()
        after = self._place
        low, high = self._counts()
        end = self._place
        if (low, high) == (1, 1):
            return piece
        start = last = self._state()
        pieces = [piece]
        for _ in range(1, max(low, high or low, 1)):
            self._place = begin
            pieces.append(self._atom())
            assert self._place == after
        self._place = end
        stop = self._state()
        for number, (first, piece_end) in enumerate(pieces):
            if number >= low:
                self._ways[last].append(stop)
            if high == 0:
                break
            self._ways[last].append(first)
            last = piece_end
        if high is None:  # once more, as often as it likes
            self._ways[last].append(pieces[-1][0])
        self._ways[last].append(stop)
        return start, stop

    def _counts(self) -> tuple[int, int | None]:
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._peek(), (1, 1))
        if self._peek() and self._peek() in "*+?":
            self._take()
        elif self._peek() == "{":
            inner, brace, _ = self._pattern[self._place + 1 :].partition("}")
            first, comma, second = inner.partition(",")
            if not brace or not first.isdigit() or not (second or "0").isdigit():
                raise PatternError(f"{self._pattern!r}: a brace is escaped, or a count {{m,n}}")
            self._place += len(inner) + 2
            low = int(first[:4])
            high = (int(second[:4]) if second else None) if comma else low
        if self._peek() and self._peek() in "*+?{":
            raise PatternError(f"{self._pattern!r}: a count after a count")
        if high is not None and high < low:
            raise PatternError(f"{self._pattern!r}: a count that runs down")
        return low, high

    def _atom(self) -> tuple[int, int]:
        character = self._take()
        if character == "(":
            if self._peek() == "?" and not self._pattern.startswith("?:", self._place):
                raise PatternError(f"{self._pattern!r}: (? is only supported as (?:")
            self._place += 2 * (self._peek() == "?")
            piece = self._either()
            if self._take() != ")":
                raise PatternError(f"{self._pattern!r}: a group isn't closed")
            return piece
        if character in "*+?{}^$":
            raise PatternError(f"{self._pattern!r}: {character} is escaped, or follows something")
        if character == "[":
            return self._one(self._char_class())
        if character == ".":
            return self._one(lambda c: c != "\n")
        if character == "\\":
            return self._one(self._escape())
        return self._one(lambda c: c == character)

    def _one(self, test: Test) -> tuple[int, int]:
        first, last = self._state(test), self._state()
        self._ways[first].append(last)
        return first, last

    def _escape(self) -> Test:
        character = self._take()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.isalnum() and character not in _CONTROL:
            raise PatternError(f"{self._pattern!r}: \\{character} is not supported")
        wanted = _CONTROL.get(character, character)
        return lambda c: c == wanted

    def _char_class(self) -> Test:
        negated = self._peek() == "^"
        self._place += negated
        tests: list[Test] = []
        while not tests or self._peek() != "]":
            character = self._take()
            if character == "\\":
                tests.append(self._escape())
                continue
            if self._peek() == "-" and self._pattern[self._place + 1 : self._place + 2] not in "]":
                self._take()
                tests.append(_between(character, self._take()))
            else:
                tests.append(_between(character, character))
        self._take()
        return lambda c: any(test(c) for test in tests) != negated


def _between(low: str, high: str) -> Test:
    return lambda c: low <= c <= high
