from __future__ import annotations

from collections import Counter

import pytest

from vlrl.config import ConfigError
from vlrl.generators import ReasoningGym, ShortFunctions
from vlrl.types import CallTests


def _rows(count: int, **parameters: object) -> list[dict[str, object]]:
    generator = ShortFunctions(parameters, 0, "here")
    return [dict(generator.make(i)) for i in range(count)]


@pytest.mark.parametrize("max_steps", [1, 2, 4])
def test_the_solution_gives_what_the_hidden_calls_expect(max_steps: int) -> None:
    for row in _rows(300, max_steps=max_steps):
        namespace: dict[str, object] = {}
        exec(str(row["solution"]), namespace)
        tests = row["tests"]
        assert isinstance(tests, CallTests)
        assert len(tests.tests) == 8
        for test in tests.tests:
            got = namespace["f"](*test.args)  # type: ignore[operator]
            assert got == test.expected, row
            assert type(got) is type(test.expected)


def test_no_solution_of_another_question_passes_by_chance() -> None:
    """Hidden inputs tell functions apart: two that agree on them are the same function."""
    rows = _rows(150)
    programs: list[object] = []
    for row in rows:
        namespace: dict[str, object] = {}
        exec(str(row["solution"]), namespace)
        programs.append(namespace["f"])
    agreements = 0
    for i, row in enumerate(rows):
        for j, program in enumerate(programs):
            if row["question"] != rows[j]["question"] and _passes(program, row["tests"]):
                agreements += 1
                a, b = rows[i]["solution"], rows[j]["solution"]
                assert _same_on_many_inputs(str(a), str(b)), (a, b)
    assert agreements < 60


def _passes(program: object, tests: object) -> bool:
    assert isinstance(tests, CallTests)
    try:
        return all(program(*t.args) == t.expected for t in tests.tests)  # type: ignore[operator]
    except TypeError:
        return False


def _same_on_many_inputs(a: str, b: str) -> bool:
    spaces: list[dict[str, object]] = [{}, {}]
    for code, space in zip((a, b), spaces, strict=True):
        exec(code, space)
    inputs: list[object] = {
        "x": list(range(-200, 200)),
        "s": ["ab" * n for n in range(20)] + ["hello"],
        "v": [list(range(-n, n)) for n in range(1, 60)] + [[5, 3, 9, -1]],
    }[a[len("def f(")]]
    f, g = spaces[0]["f"], spaces[1]["f"]
    return all(f(i) == g(i) for i in inputs)  # type: ignore[operator]


def test_an_index_is_always_the_same_row_and_a_seed_changes_it() -> None:
    assert _rows(20) == _rows(20)
    other = ShortFunctions({}, 1, "here")
    assert [r["question"] for r in _rows(20)] != [other.make(i)["question"] for i in range(20)]


def test_kinds_are_even_and_parameters_narrow_them() -> None:
    variables = Counter(str(r["question"])[len("Write a function f(")] for r in _rows(600))
    assert set(variables) == {"x", "s", "v"}
    assert min(variables.values()) > 150
    only = _rows(30, kinds=["number"], min_steps=2, max_steps=2)
    assert all("f(x)" in str(r["question"]) and ", then " in str(r["question"]) for r in only)


def test_a_misspelt_parameter_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"here.*'max_step'.*did you mean 'max_steps'"):
        ShortFunctions({"max_step": 2}, 0, "here")


def test_reasoning_gym_gives_the_same_row_for_an_index() -> None:
    settings = {"task": "knights_knaves", "n_people": 2, "depth_constraint": 2}
    first, second = (ReasoningGym(settings, 0, "here") for _ in range(2))
    rows = [first.make(i) for i in (3, 1, 2)]
    assert [second.make(i)["question"] for i in (3, 1, 2)] == [r["question"] for r in rows]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "'generator.parameters.task' is missing"),
        ({"task": "chain_sums"}, "no task 'chain_sums': did you mean 'chain_sum'"),
        ({"task": "chain_sum", "min_term": 2}, "'generator.parameters.min_term': did you mean"),
        ({"task": "chain_sum", "min_terms": -2}, "reasoning-gym refuses"),
    ],
)
def test_reasoning_gym_errors_say_what_is_wrong(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ReasoningGym(parameters, 0, "here")
