from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from tests.groups import group
from vlrl import compare as compare_module
from vlrl.compare import compare, paired_interval, sign_flip_test
from vlrl.recorded import EvalFileError, read_evaluation
from vlrl.report.comparison import write
from vlrl.report.log import append_jsonl, transcript
from vlrl.types import Group, Status


def run(folder: Path, **suites: Sequence[Group]) -> Path:
    for name, groups in suites.items():
        append_jsonl(folder / f"{name}.jsonl", transcript(groups, 0))
    return folder


def groups(correct: Mapping[str, Sequence[int]], domain: str = "math_qa") -> list[Group]:
    return [group(name, correct=right, domain=domain) for name, right in correct.items()]


def halves(*numerators: int) -> list[Fraction]:
    return [Fraction(n, 2) for n in numerators]


def test_a_comparison_by_hand(tmp_path: Path) -> None:
    """Differences 1/2, 1/2, -1/2, 0: mean 1/8, SD sqrt(11)/sqrt(48), t for 3 degrees 3.1824463."""
    a = run(tmp_path / "a", s=groups({"p": [0, 1], "q": [0, 0], "r": [1, 1], "t": [1, 0]}))
    b = run(tmp_path / "b", s=groups({"t": [0, 1], "p": [1, 1], "q": [0, 1], "r": [0, 1]}))
    found = compare(a, b)
    (domain,) = found.domains
    assert (domain.suite, domain.domain, domain.num_problems) == ("s", "math_qa", 4)
    assert (domain.a, domain.b, domain.difference.mean) == (0.5, 0.625, 0.125)
    half = 3.182446305 * math.sqrt(11 / 48 / 4)
    assert math.isclose(domain.difference.high, 0.125 + half, rel_tol=1e-8)
    assert math.isclose(domain.difference.low, 0.125 - half, rel_tol=1e-8)
    assert (domain.wins_a, domain.wins_b, domain.ties) == (1, 2, 1)
    # Of 8 signs of the three that moved, all have a sum at least 1/2 from 0.
    assert (domain.p_value, domain.exact) == (1.0, True)
    assert [p.winner for p in found.problems] == ["b", "b", "a", "tie"]
    assert found.macro.mean == 0.125 and found.num_ungraded == found.num_reworded == 0


def test_single_samples_take_agresti_and_mins_interval() -> None:
    """10 problems, B alone solves 4 and A alone 1: centre 3/12, SE sqrt(6 - 9/12) / 12."""
    found = paired_interval([1.0] * 4 + [-1.0] + [0.0] * 5)
    half = 1.959963984540054 * math.sqrt(5.25) / 12
    assert math.isclose(found.mean, 0.3)
    assert math.isclose(found.low, 0.25 - half) and math.isclose(found.high, 0.25 + half)
    for alike in ([0.0] * 30, [0.25] * 3, [1.0]):
        found = paired_interval(alike)
        assert -1 <= found.low < found.mean <= found.high <= 1


def test_the_sign_flip_test_is_the_share_of_all_signs() -> None:
    for numbers in ([2, 2, 2, 2, 2], [1, -2, 1, 2, 0, 1], [3, 1, -1, 2, 2, 2, -1], [0, 0]):
        differences = halves(*numbers)
        sums = [
            abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in product((1, -1), repeat=len(differences))
        ]
        share = sum(s >= abs(sum(differences)) for s in sums) / len(sums)
        p_value, exact = sign_flip_test(differences)
        assert exact and math.isclose(p_value, share)
    assert sign_flip_test(halves(2, 2, 2, 2, 2))[0] == 2 / 2**5


def test_single_samples_make_it_mcnemars_exact_test() -> None:
    """B alone solves 12, A alone 3: twice the chance of 12 or more heads in 15."""
    p_value, _ = sign_flip_test([Fraction(1)] * 12 + [Fraction(-1)] * 3 + [Fraction()] * 50)
    assert math.isclose(p_value, 2 * sum(math.comb(15, i) for i in range(12, 16)) / 2**15)


def test_drawn_signs_agree_and_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = halves(1, 2, -1, 2, 1, 1, 2, -1, 1, 1)
    counted, _ = sign_flip_test(differences)
    monkeypatch.setattr(compare_module, "MAX_CELLS", 0)
    drawn, exact = sign_flip_test(differences, seed=3)
    assert not exact and abs(drawn - counted) < 0.005
    assert sign_flip_test(differences, seed=3) == (drawn, False)


def test_domains_and_suites_are_compared_apart_and_averaged(tmp_path: Path) -> None:
    mixed = [*groups({"p": [0]}), *groups({"q": [1]}, "coding")]
    a = run(tmp_path / "a", x=mixed, y=groups({"p": [0]}))
    mixed = [*groups({"p": [1]}), *groups({"q": [1]}, "coding")]
    b = run(tmp_path / "b", x=mixed, y=groups({"p": [0]}))
    found = compare(a, b)
    assert [(d.suite, d.domain, d.difference.mean) for d in found.domains] == [
        ("x", "math_qa", 1.0),
        ("x", "coding", 0.0),
        ("y", "math_qa", 0.0),
    ]
    assert found.macro.mean == 0.25
    assert compare(a / "y.jsonl", b / "y.jsonl").domains[0].num_problems == 1


def test_failed_verifiers_leave_their_problem_out(tmp_path: Path) -> None:
    failed = group("p", correct=[0, 0], statuses=[Status.ERROR] * 2)
    partly = group("q", correct=[0, 1], statuses=[Status.ERROR, Status.OK])
    a = run(tmp_path / "a", s=[failed, partly])
    b = run(tmp_path / "b", s=groups({"p": [1, 1], "q": [1, 0]}))
    found = compare(a, b)
    assert found.num_ungraded == 1
    assert [(p.problem, p.a, p.b, p.attempts_a) for p in found.problems] == [("q", 1.0, 0.5, 1)]
    with pytest.raises(EvalFileError, match="no problem has a graded attempt in both"):
        compare(run(tmp_path / "c", s=[failed]), run(tmp_path / "d", s=groups({"p": [1]})))


def test_other_problems_are_refused_by_name(tmp_path: Path) -> None:
    a = run(tmp_path / "a", s=groups({"p": [0], "q": [1]}))
    b = run(tmp_path / "b", s=groups({"p": [0], "r": [1]}))
    with pytest.raises(EvalFileError) as error:
        compare(a, b)
    assert f"{b} has no problem of s q; {a} has no problem of s r" in str(error.value)
    many = run(tmp_path / "many", s=groups({f"n{i}": [0] for i in range(9)}))
    none = run(tmp_path / "none", s=groups({"n0": [0]}))
    with pytest.raises(EvalFileError, match="n1, n2, n3, n4, n5 and 3 more"):
        compare(many, none)
    with pytest.raises(EvalFileError, match="has no suite s"):
        compare(a, run(tmp_path / "c", other=groups({"p": [0]})))
    with pytest.raises(EvalFileError, match="two files or two folders"):
        compare(a, b / "s.jsonl")
    coding = run(tmp_path / "d", s=groups({"p": [0], "q": [1]}, "coding"))
    with pytest.raises(EvalFileError, match=r"of domain math_qa .* of coding"):
        compare(a, coding)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": None}, r"line 2: key 'problem' is NoneType; it must be a text"),
        ({"status": []}, r"line 2, problem p: status \[\] is none of ok, unparsable"),
        ({"correct": 1}, r"line 2, problem p: key 'correct' must be true or false"),
        ({"attempt": 0}, r"line 2, problem p: attempt 0 stands in line 1 already"),
        ({"question": "!"}, r"line 2, problem p: another line has this id"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, changes: Mapping[str, object], message: str) -> None:
    path = tmp_path / "s.jsonl"
    first, second = transcript([group("p", correct=[0, 1])], 0)
    append_jsonl(path, [first, {**second, **changes}])
    with pytest.raises(EvalFileError, match=message):
        read_evaluation(tmp_path)
    path.write_text("{\n")
    with pytest.raises(EvalFileError, match=r"s.jsonl, line 1: not valid JSON"):
        read_evaluation(path)
    path.unlink()
    with pytest.raises(EvalFileError, match="no transcript"):
        read_evaluation(tmp_path)


def test_the_file_names_every_problems_winner(tmp_path: Path) -> None:
    a = run(tmp_path / "a", s=groups({"p": [0, 1], "q": [1, 1]}))
    b = run(tmp_path / "b", s=groups({"p": [1, 1], "q": [0, 0]}))
    found = compare(a, b)
    write(found, tmp_path / "won.csv")
    rows = list(csv.DictReader((tmp_path / "won.csv").open()))
    assert [(r["problem"], r["difference"], r["winner"]) for r in rows] == [
        ("p", "0.5", "b"),
        ("q", "-1.0", "a"),
    ]
    write(found, tmp_path / "won.json")
    whole = json.loads((tmp_path / "won.json").read_text())
    assert whole["domains"][0]["difference"]["mean"] == -0.25
    assert [p["winner"] for p in whole["problems"]] == ["b", "a"]
    with pytest.raises(EvalFileError, match=r"must end in \.json or \.csv"):
        write(found, tmp_path / "won.txt")
