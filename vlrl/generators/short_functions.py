"""Short Python functions to write from a description; judged by running them on hidden inputs.

    Write a function f(x) that multiplies x by 3, then adds 7.  ->  def f(x):
                                                                        return x * 3 + 7

A description is a chain of steps over an integer, a string or a list of integers. Each step knows
its words, its Python expression and what it does; hidden inputs and their results come from the
last, so the text of the solution is never what it is judged by.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from vlrl.config import Section, validate
from vlrl.types import CallTest, CallTests

Kind = Literal["number", "text", "list"]
ATOM, PRODUCT, SUM = 2, 1, 0
"""How tightly an expression binds."""


class ShortFunctionsConfig(Section):
    """The parameters of this generator."""

    kinds: tuple[Kind, ...] = Field(default=("number", "text", "list"), min_length=1)
    min_steps: int = Field(default=1, ge=1)
    max_steps: int = Field(default=2, ge=1, le=4)
    largest: int = Field(default=20, ge=9)
    """The largest constant that is added, subtracted or compared with."""
    num_tests: int = Field(default=8, ge=4)


@dataclass(frozen=True)
class Step:
    """One step of a chain: "adds 7 to x" or, when it isn't the first, "adds 7"."""

    first: str
    later: str
    code: str
    """The expression, `{}` standing for the value so far: `{} + 7`."""
    binds: int
    """How tightly `code` binds."""
    needs: int
    """How tightly the value so far must bind to go without parentheses."""
    run: Callable[[Any], object]
    gives: Kind
    edges: tuple[int, ...] = ()
    """Values that a list of inputs should hold to tell this step from its neighbours."""


class ShortFunctions:
    """Functions of one argument: `f(x)` of a number, `f(s)` of a text, `f(v)` of a list."""

    def __init__(self, parameters: Mapping[str, object], seed: int, where: str) -> None:
        self._config = validate(ShortFunctionsConfig, parameters, f"{where}, generator.parameters")
        self._seed = seed

    def make(self, index: int) -> Mapping[str, object]:
        """Fields: question, function, solution, tests (a CallTests)."""
        config = self._config
        rng = random.Random(f"short_functions/{self._seed}/{index}")
        kind: Kind = rng.choice(config.kinds)
        variable = {"number": "x", "text": "s", "list": "v"}[kind]
        steps = _chain(rng, kind, rng.randint(config.min_steps, config.max_steps), config.largest)
        words = [steps[0].first.format(variable), *(step.later for step in steps[1:])]
        inputs = _inputs(rng, kind, config.num_tests, steps)
        tests = tuple(CallTest(args=(value,), expected=_run(steps, value)) for value in inputs)
        return {
            "question": f"Write a function f({variable}) that {', then '.join(words)}.",
            "function": "f",
            "solution": f"def f({variable}):\n    return {_expression(steps, variable)}",
            "tests": CallTests(function="f", tests=tests),
        }


def _chain(rng: random.Random, kind: Kind, num_steps: int, largest: int) -> list[Step]:
    steps: list[Step] = []
    for _ in range(num_steps):
        steps.append(rng.choice(_STEPS[kind](rng, largest)))
        kind = steps[-1].gives
    return steps


def _expression(steps: list[Step], variable: str) -> str:
    code, binds = variable, ATOM
    for step in steps:
        code = step.code.format(code if binds >= step.needs else f"({code})")
        binds = step.binds
    return code


def _run(steps: list[Step], value: object) -> object:
    for step in steps:
        value = step.run(value)
    return value


def _inputs(rng: random.Random, kind: Kind, count: int, steps: list[Step]) -> list[object]:
    """Different inputs, the empty or zero one among them."""
    inputs: list[object] = [{"number": 0, "text": "", "list": []}[kind]]
    edges = [edge for step in steps for edge in step.edges]
    while len(inputs) < count:
        value: object
        if kind == "number":
            value = rng.randint(-50, 100)
        elif kind == "text":
            value = "".join(rng.choices(string.ascii_letters, k=rng.randint(1, 9)))
        else:
            value = [rng.randint(-30, 40) for _ in range(rng.randint(2, 8))] + edges
        if value not in inputs:
            inputs.append(value)
    return inputs


def _number_steps(rng: random.Random, largest: int) -> list[Step]:
    k, m = rng.randint(1, largest), rng.randint(2, 9)
    return [
        Step(f"adds {k} to {{}}", f"adds {k}", f"{{}} + {k}", SUM, SUM, lambda x: x + k, "number"),
        Step(
            f"subtracts {k} from {{}}",
            f"subtracts {k}",
            f"{{}} - {k}",
            SUM,
            SUM,
            lambda x: x - k,
            "number",
        ),
        Step(
            f"multiplies {{}} by {m}",
            f"multiplies by {m}",
            f"{{}} * {m}",
            PRODUCT,
            PRODUCT,
            lambda x: x * m,
            "number",
        ),
    ]


def _text_steps(rng: random.Random, largest: int) -> list[Step]:
    del largest
    n = rng.randint(2, 5)
    w = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 2)))
    return [
        Step(
            f"appends '{w}' to {{}}",
            f"appends '{w}'",
            f"{{}} + '{w}'",
            SUM,
            SUM,
            lambda s: s + w,
            "text",
        ),
        Step(
            f"puts '{w}' before {{}}",
            f"puts '{w}' before it",
            f"'{w}' + {{}}",
            SUM,
            SUM,
            lambda s: w + s,
            "text",
        ),
        Step(
            f"repeats {{}} {n} times",
            f"repeats it {n} times",
            f"{{}} * {n}",
            PRODUCT,
            PRODUCT,
            lambda s: s * n,
            "text",
        ),
        Step(
            f"takes the first {n} letters of {{}}",
            f"takes the first {n} letters",
            f"{{}}[:{n}]",
            ATOM,
            ATOM,
            lambda s: s[:n],
            "text",
        ),
        Step("reverses {}", "reverses it", "{}[::-1]", ATOM, ATOM, lambda s: s[::-1], "text"),
    ]


def _list_steps(rng: random.Random, largest: int) -> list[Step]:
    k, m, n = rng.randint(1, largest), rng.randint(2, 9), rng.randint(2, 5)
    return [
        Step(
            f"adds {k} to each number of {{}}",
            f"adds {k} to each number",
            f"[n + {k} for n in {{}}]",
            ATOM,
            SUM,
            lambda v: [n + k for n in v],
            "list",
        ),
        Step(
            f"multiplies each number of {{}} by {m}",
            f"multiplies each number by {m}",
            f"[n * {m} for n in {{}}]",
            ATOM,
            SUM,
            lambda v: [n * m for n in v],
            "list",
        ),
        Step(
            f"keeps the numbers of {{}} above {k}",
            f"keeps the numbers above {k}",
            f"[n for n in {{}} if n > {k}]",
            ATOM,
            SUM,
            lambda v: [n for n in v if n > k],
            "list",
            (k, k + 1),
        ),
        Step(
            f"takes the first {n} numbers of {{}}",
            f"takes the first {n} numbers",
            f"{{}}[:{n}]",
            ATOM,
            ATOM,
            lambda v: v[:n],
            "list",
        ),
        Step("adds up {}", "adds up the numbers", "sum({})", ATOM, SUM, sum, "number"),
        Step("sorts {}", "sorts it", "sorted({})", ATOM, SUM, sorted, "list"),
    ]


_STEPS: Mapping[Kind, Callable[[random.Random, int], list[Step]]] = {
    "number": _number_steps,
    "text": _text_steps,
    "list": _list_steps,
}
