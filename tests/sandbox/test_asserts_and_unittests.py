"""Test code in one process, the program in another, plain data between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.test_sandbox import GOOD, HONEST, LYING, TIGHT
from vlrl.sandbox import Ending, Sandbox
from vlrl.types import AssertTests, UnitTests

CODE = "assert add(1, 2) == 3\nassert add(2, b=5) == 7\nassert helper() == 1"
ADD = AssertTests(code=CODE, function="add", prefix="def helper(): return 1\n")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(workers=1)
    yield sandbox
    sandbox.close()


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_pass(sandbox: Sandbox, name: str) -> None:
    outcome = sandbox.run_asserts(HONEST[name], ADD)
    assert outcome.ending is Ending.PASSED, outcome


CHEATS = {
    "helpers of its own": "def helper(): return 2\ndef add(a, b): return 1",
    "patched builtins": "import builtins\nbuiltins.abs = lambda x: 0\ndef add(a, b): return 99",
    "arithmetic that always fits": "class E:\n"
    + "".join(
        f" def __{name}__(s, *o): return {value}\n"
        for name, value in {
            **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "bool"), "True"),
            **dict.fromkeys(("add", "sub", "rsub", "abs", "round"), "s"),
            "contains": "True",
        }.items()
    )
    + "def add(a, b): return E()",
    "an exception that equals": "def add(a, b): raise AssertionError",
    "looks for the tests": "import gc\ndef add(a, b):\n"
    "    for o in gc.get_objects():\n        if 'assert add' in str(o): return 3\n    return 0",
    "writes a verdict": "import os\ndef add(a, b):\n    for fd in range(64):\n"
    '        try: os.write(fd, b\'[{"i": "0x1"}, {"i": "0x1"}, ""]\')\n'
    "        except OSError: pass\n    os._exit(0)",
    "speaks the protocol": "import os, struct\ndef add(a, b):\n"
    "    m = b'[\"value\", true, []]'\n"
    "    while True: os.write(6, struct.pack('Q', len(m)) + m)",
    "floods": "import os\ndef add(a, b):\n    while True: os.write(6, b'\\xff' * 65536)",
}


@pytest.mark.parametrize("name", LYING | CHEATS)
def test_dishonest_programs_fail(sandbox: Sandbox, name: str) -> None:
    program = (LYING | CHEATS)[name]
    outcome = sandbox.run_asserts(program, ADD, TIGHT)
    assert outcome.ending is not Ending.PASSED
    assert outcome.note
    for code in (
        "assert abs(add(1, 2) - 3) < 1",
        "assert 3 - add(1, 2) == 0",
        "assert 3 in [add(1, 2)]",
        "assert add(1, 2) >= 3 and add(1, 2) <= 3",
        "import math\nassert math.isclose(add(1, 2), 3)",
    ):
        if name in ("arithmetic that always fits", "patched builtins"):
            close = AssertTests(code=code, function="add")
            assert sandbox.run_asserts(program, close, TIGHT).ending is Ending.FAILED, code


PROGRAM = """
import collections, datetime, decimal, enum, fractions
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
Point = collections.namedtuple("Point", "x y")
def total(pairs): return sum(p.a + p.b for p in pairs)
def half(n): return fractions.Fraction(n, 2)
def money(n): return decimal.Decimal(n) / 4
def day(n): return datetime.date(2020, 1, n)
def point(n): return Point(n, n)
def upto(n): yield from range(n)
def sets(n): return {frozenset([n])}
def sort(items): items.sort()
def drop(table): del table["a"]
def twice(f, x): return f(f(x))
def fails(n): raise {1: ValueError, 2: KeyError, 3: StopIteration}[n]("no")
def kind(x): return type(x)
"""
HONEST_CODE = [
    "assert total([Pair(1, 2), Pair(3, 4)]) == 10",
    "from fractions import Fraction\nassert half(3) == Fraction(3, 2) and half(3) == 1.5",
    "from decimal import Decimal\nassert money(1) == Decimal('0.25')",
    "import datetime\nassert day(3) == datetime.date(2020, 1, 3)",
    "assert point(2) == (2, 2)",
    "assert list(upto(1000)) == list(range(1000)) and next(upto(2)) == 0 and max(upto(3)) == 2",
    "assert sets(1) == {frozenset([1])}",
    "x = [3, 1, 2]\nsort(x)\nassert x == [1, 2, 3]",
    "x = {'a': 1, 'b': 2}\ndrop(x)\nassert x == {'b': 2}",
    "assert twice(lambda n: n + 1, 1) == 3",
    "for n, kind_ in ((1, ValueError), (2, KeyError)):\n    try: fails(n)\n"
    "    except kind_ as e: assert e.args == ('no',)\n    else: assert False",
    "assert kind(1) == int and kind('') is str",
    "assert math.isclose(point(2)[0], 2)",
]


@pytest.mark.parametrize("code", HONEST_CODE)
def test_what_honest_test_code_may_do(sandbox: Sandbox, code: str) -> None:
    outcome = sandbox.run_asserts(PROGRAM, AssertTests(code=code))
    assert outcome.ending is Ending.PASSED, outcome


def test_a_tested_function_may_be_named_like_a_builtin(sandbox: Sandbox) -> None:
    tests = AssertTests(code="assert sum(10, 15) == 6")
    assert sandbox.run_asserts("def sum(a, b): return 6", tests).ending is Ending.PASSED
    mixed = AssertTests(code="assert sum(f(2)) == 5")
    patched = "def sum(x): return 5\ndef f(n): return [n]"
    assert sandbox.run_asserts(patched, mixed).ending is Ending.FAILED


UNITTEST = """
import unittest
from solution import Account, Broke
import solution

class AccountTest(unittest.TestCase):
    def setUp(self):
        self.account = Account(5)
    def test_balance(self):
        self.account.deposit(3)
        self.assertEqual(self.account.balance, 8)
        self.assertEqual(len(self.account), 2)
        self.assertEqual(list(self.account), [5, 3])
    def test_equal(self):
        self.assertEqual(self.account, Account(5))
        self.assertNotEqual(self.account, Account(6))
        self.assertIsInstance(self.account, Account)
    def test_errors(self):
        with self.assertRaises(Broke) as caught:
            self.account.take(9)
        self.assertEqual(caught.exception.missing, 4)
        self.assertRaises(ValueError, solution.Account, -1)
    def test_callback(self):
        seen = []
        self.account.each(seen.append)
        self.assertEqual(seen, [5])

def test_plain_function():
    assert Account(1).balance == 1
"""
ACCOUNT = """
class Broke(Exception):
    def __init__(self, n): super().__init__(n); self.missing = n
class Account:
    def __init__(self, n):
        if n < 0: raise ValueError(n)
        self.log = [n]
    @property
    def balance(self): return sum(self.log)
    def deposit(self, n): self.log.append(n)
    def take(self, n):
        if n > self.balance: raise Broke(n - self.balance)
    def __len__(self): return len(self.log)
    def __iter__(self): return iter(self.log)
    def __eq__(self, other): return self.balance == other.balance
    def each(self, f): [f(x) for x in self.log]
"""


def test_unittest_files(sandbox: Sandbox) -> None:
    tests = UnitTests(code=UNITTEST)
    outcome = sandbox.run_unittests(ACCOUNT, tests)
    assert (outcome.ending, outcome.num_passed, outcome.num_tests) == (Ending.PASSED, 5, 5)
    for wrong, passed in (("self.missing = n", 4), ("return len(self.log)", 4)):
        outcome = sandbox.run_unittests(ACCOUNT.replace(wrong, "pass"), tests)
        assert (outcome.ending, outcome.num_passed) == (Ending.FAILED, passed)
    patched = "import unittest\nunittest.TestCase.assertEqual = print\n" + ACCOUNT.replace(
        "n >", "0 >"
    )
    assert sandbox.run_unittests(patched, tests).ending is Ending.FAILED
    for program in ("", "exit(0)", "import os; os._exit(0)", "x = ("):
        assert sandbox.run_unittests(program, tests).ending is Ending.FAILED


@pytest.mark.parametrize(
    "code",
    [
        "import unittest",
        "import unittest\n@unittest.skip('')\nclass T(unittest.TestCase):\n    def test(self): 1",
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "import os\nos._exit(0)",
    ],
)
def test_a_file_that_runs_no_test_passes_nobody(sandbox: Sandbox, code: str) -> None:
    outcome = sandbox.run_unittests(GOOD, UnitTests(code=code))
    assert outcome.ending is Ending.FAILED
    assert (outcome.num_passed, outcome.num_tests) == (0, 1)


def test_endless_test_code_is_a_timeout(sandbox: Sandbox) -> None:
    tests = AssertTests(code="while True: add(1, 2)", function="add")
    assert sandbox.run_asserts(GOOD, tests, TIGHT).ending is Ending.TIMEOUT
