from __future__ import annotations

import pytest

from vlrl.config import ConfigError
from vlrl.tasks.math_qa import MathQA
from vlrl.types import Completion, Finish, Problem
from vlrl.verifiers.dotted import load_task

MINE = "tests.verifiers.mine"


def completion(text: str) -> Completion:
    return Completion(text=text, token_ids=(), logprobs=(), finish=Finish.STOP)


@pytest.mark.parametrize("name", ["same", "same_later", "math"])
def test_verifiers_are_found_by_name(name: str) -> None:
    task = load_task(f"{MINE}:{name}")
    problem = Problem(id="1", domain="yours", question="?", answer="5")
    assert task.grade(problem, completion("\\boxed{5}")).correct


def test_a_tasks_class_is_made() -> None:
    assert isinstance(load_task("vlrl.tasks.math_qa:MathQA"), MathQA)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("mine.same", "write it as my_module:my_verifier"),
        (":same", "write it as my_module:my_verifier"),
        ("no_such_module:same", "no module 'no_such_module' in"),
        ("tests.no_such.module:same", "no module 'tests.no_such'"),
        ("tests.verifiers.broken_module:same", "failed: OSError: no licence"),
        (f"{MINE}:sam", "has no 'sam': did you mean 'same'?"),
        (f"{MINE}:not_callable", "is a int; a verifier is a function of (gold, response)"),
        (f"{MINE}:one_argument", "takes (response: 'str') -> 'bool': too many positional"),
        (f"{MINE}:Needs", "can't be made without arguments"),
    ],
)
def test_what_cannot_be_loaded_is_named(reference: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_task(reference)
    assert words in str(error.value)
