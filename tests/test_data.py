"""The mixture: fixed shares in every batch, no repeats in an epoch, exact resume, broken rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_task import PLAIN_TASKS
from vlrl.broken import TooManyBrokenRows
from vlrl.config import ConfigError, DataConfig, DomainConfig, validate
from vlrl.data import BROKEN_FILE, ProblemStream, StreamState, batch_counts
from vlrl.types import Problem

QUICKSTART = DataConfig(
    mixture={
        "math_qa": DomainConfig(share=0.3, recipes=("chain_sum",)),
        "logic": DomainConfig(share=0.3, recipes=("family", "knights_knaves_2")),
        "coding": DomainConfig(share=0.25, recipes=("short_functions",)),
        "image_qa": DomainConfig(share=0.15, recipes=("easy_vqa",)),
    },
    prompts_per_step=9,
)


def _recipe(folder: Path, name: str, rows: list[dict[str, object]], task: str = "math_qa") -> str:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ntask: {task}\nlicence: none\nfile: {{}}\nsplits: {{train: {name}.jsonl}}\n"
        "fields: {images: image}\n"
    )
    return str(path)


def _rows(count: int) -> list[dict[str, object]]:
    return [{"question": f"q{i}", "answer": "a", "image": None} for i in range(count)]


def _config(*recipes: str, prompts_per_step: int = 4, max_broken: float = 0.01) -> DataConfig:
    return DataConfig(
        mixture={"math_qa": DomainConfig(share=1.0, recipes=recipes)},
        prompts_per_step=prompts_per_step,
        max_broken=max_broken,
    )


def test_every_batch_holds_every_domain_at_its_share() -> None:
    stream = ProblemStream(QUICKSTART, 0, PLAIN_TASKS)
    total: Counter[str] = Counter()
    for _ in range(20):
        batch = stream.next_batch()
        counts = Counter(problem.domain for problem in batch)
        assert len(batch) == 9
        for domain, part in QUICKSTART.mixture.items():
            assert int(part.share * 9) <= counts[domain] <= int(part.share * 9) + 1
        total += counts
    assert total == {"math_qa": 54, "logic": 54, "coding": 45, "image_qa": 27}


def test_the_halves_of_a_batch_are_mixed_alike() -> None:
    config = QUICKSTART.model_copy(update={"prompts_per_step": 40})
    batch = ProblemStream(config, 0, PLAIN_TASKS).next_batch()
    halves = [Counter(p.domain for p in half) for half in (batch[:20], batch[20:])]
    assert halves[0] == halves[1] == {"math_qa": 6, "logic": 6, "coding": 5, "image_qa": 3}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 40))
def test_shares_are_within_one_in_a_batch_and_exact_in_the_long_run(
    weights: list[int], batch_size: int
) -> None:
    shares = {f"d{i}": weight / sum(weights) for i, weight in enumerate(weights)}
    drawn = dict.fromkeys(shares, 0)
    num_batches = 100
    for _ in range(num_batches):
        counts = batch_counts(shares, batch_size, drawn)
        assert sum(counts.values()) == batch_size
        for domain, count in counts.items():
            assert abs(count - shares[domain] * batch_size) < 1 + 1e-6
            drawn[domain] += count
    for domain, share in shares.items():
        assert abs(drawn[domain] - share * batch_size * num_batches) < len(shares)


def test_no_repeat_within_an_epoch_and_another_order_in_the_next(tmp_path: Path) -> None:
    stream = ProblemStream(_config(_recipe(tmp_path, "a", _rows(10))), 0, PLAIN_TASKS)
    drawn = [problem.id for _ in range(5) for problem in stream.next_batch()]
    assert len(set(drawn[:10])) == 10
    assert set(drawn[10:]) == set(drawn[:10])
    assert drawn[10:] != drawn[:10]


def test_the_recipes_of_a_domain_take_turns(tmp_path: Path) -> None:
    recipes = [_recipe(tmp_path, name, _rows(20)) for name in "ab"]
    stream = ProblemStream(_config(*recipes, prompts_per_step=3), 0, PLAIN_TASKS)
    sources = [problem.source for _ in range(4) for problem in stream.next_batch()]
    assert sources == ["a", "b"] * 6


def test_the_same_seed_gives_the_same_problems_and_another_seed_others(tmp_path: Path) -> None:
    config = _config(_recipe(tmp_path, "a", _rows(50)))
    ids = [
        [p.id for p in ProblemStream(config, seed, PLAIN_TASKS).next_batch()] for seed in (0, 0, 1)
    ]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("num_before", [0, 1, 7, 13])
def test_resumed_equals_uninterrupted(tmp_path: Path, num_before: int) -> None:
    rows = _rows(30)
    rows[4]["answer"] = rows[21]["answer"] = ""
    config = QUICKSTART.model_copy(
        update={
            "mixture": QUICKSTART.mixture
            | {"math_qa": DomainConfig(share=0.3, recipes=(_recipe(tmp_path, "a", rows),))},
            "max_broken": 0.1,
        }
    )
    whole = ProblemStream(config, 5, PLAIN_TASKS)
    uninterrupted = [whole.next_batch() for _ in range(20)]
    first = ProblemStream(config, 5, PLAIN_TASKS)
    for _ in range(num_before):
        first.next_batch()
    tree = json.loads(first.state().model_dump_json())
    second = ProblemStream(config, 5, PLAIN_TASKS)
    second.restore(validate(StreamState, tree, "checkpoint"))
    assert [second.next_batch() for _ in range(20 - num_before)] == uninterrupted[num_before:]
    assert second.state() == whole.state()
    assert second.num_broken == whole.num_broken
    assert whole.num_broken["a"] == 2, "a broken row counts once, not once an epoch"


def test_a_state_of_other_data_is_refused(tmp_path: Path) -> None:
    config = _config(_recipe(tmp_path, "a", _rows(10)))
    state = ProblemStream(config, 0, PLAIN_TASKS).state()
    with pytest.raises(ConfigError, match="seed were 0, and are now 1"):
        ProblemStream(config, 1, PLAIN_TASKS).restore(state)
    _recipe(tmp_path, "a", _rows(11))
    with pytest.raises(ConfigError, match="recipe a had 10 rows, and now has 11"):
        ProblemStream(config, 0, PLAIN_TASKS).restore(state)
    other = _config(_recipe(tmp_path, "b", _rows(10)))
    with pytest.raises(ConfigError, match=r"recipes of data\.mixture were \['a'\]"):
        ProblemStream(other, 0, PLAIN_TASKS).restore(state)


def _check(problem: Problem) -> None:
    if problem.question == "q3":
        raise ValueError("its prompt has 99 tokens, above data.max_prompt_tokens=50")


def test_broken_rows_are_skipped_counted_and_named(tmp_path: Path) -> None:
    rows = _rows(100)
    rows[0]["answer"] = ""
    rows[1]["image"] = "gone.png"
    rows[2]["answer"] = "refuse"
    config = _config(_recipe(tmp_path, "a", rows), max_broken=0.04)
    run = tmp_path / "run"
    stream = ProblemStream(config, 0, PLAIN_TASKS, check=_check, folder=run)
    drawn = [problem.question for _ in range(48) for problem in stream.next_batch()]
    assert set(drawn) == {f"q{i}" for i in range(4, 100)}
    assert stream.num_broken == {"a": 4}
    named = [json.loads(line) for line in (run / BROKEN_FILE).read_text().splitlines()]
    assert {line["row"]: line["why"] for line in named} == {
        0: "the answer is empty (field 'answer')",
        1: f"image {tmp_path / 'gone.png'} is missing (field 'image')",
        2: "the task refuses this row",
        3: "its prompt has 99 tokens, above data.max_prompt_tokens=50",
    }
    assert {(line["recipe"], line["split"]) for line in named} == {("a", "train")}
    again = ProblemStream(config, 0, PLAIN_TASKS, check=_check, folder=run)
    for _ in range(25):
        again.next_batch()
    assert len((run / BROKEN_FILE).read_text().splitlines()) == 4, "not named twice"


def test_a_recipe_with_too_many_broken_rows_stops_the_run(tmp_path: Path) -> None:
    rows = _rows(200)
    for row in rows[:3]:
        row["answer"] = ""
    path = _recipe(tmp_path, "a", rows)
    stream = ProblemStream(_config(path), 0, PLAIN_TASKS, folder=tmp_path)
    with pytest.raises(TooManyBrokenRows, match=r"a: 3 of 200 rows.*data\.max_broken=0\.01.*jsonl"):
        for _ in range(50):
            stream.next_batch()
    told_otherwise = ProblemStream(_config(path, max_broken=0.02), 0, PLAIN_TASKS)
    for _ in range(50):
        told_otherwise.next_batch()
    for row in rows[:2]:
        row["answer"] = "a"
    exactly_at_it = ProblemStream(_config(_recipe(tmp_path, "a", rows)), 0, PLAIN_TASKS)
    for _ in range(50):
        exactly_at_it.next_batch()


def test_nothing_but_broken_rows_ends_whatever_the_limit(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "", "image": None}] * 30
    path = _recipe(tmp_path, "a", rows)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="all 30 rows are broken: the answer is empty"):
        ProblemStream(_config(path, max_broken=1.0), 0, PLAIN_TASKS).next_batch()


def test_broken_rows_of_an_endless_recipe_are_judged_by_those_seen() -> None:
    def check(problem: Problem) -> None:
        if int(problem.id.rsplit("/", 1)[1]) % 20 == 0:
            raise ValueError("every twentieth")

    stream = ProblemStream(_config("chain_sum", max_broken=0.06), 0, PLAIN_TASKS, check=check)
    for _ in range(100):
        stream.next_batch()
    assert stream.num_broken == {"chain_sum": 22}
    strict = ProblemStream(_config("chain_sum", max_broken=0.04), 0, PLAIN_TASKS, check=check)
    with pytest.raises(TooManyBrokenRows, match="5 of 100 rows"):
        for _ in range(100):
            strict.next_batch()


def test_errors_of_the_mixture_name_the_key(tmp_path: Path) -> None:
    path = _recipe(tmp_path, "a", _rows(5), task="logic")
    with pytest.raises(ConfigError, match=r"data\.mixture\.math_qa.*put it under data\.mixture\.l"):
        ProblemStream(_config(path), 0, PLAIN_TASKS)
    math = {"maths_qa": DomainConfig(share=1.0, recipes=(path,))}
    with pytest.raises(ConfigError, match=r"data\.mixture\.maths_qa'.*did you mean 'math_qa'"):
        ProblemStream(DataConfig(mixture=math), 0, PLAIN_TASKS)
    path = _recipe(tmp_path, "a", _rows(5))
    with pytest.raises(ConfigError, match="recipe a stands twice"):
        ProblemStream(_config(path, path), 0, PLAIN_TASKS)


def test_the_prompts_of_real_image_rows_carry_paths(shared: Path) -> None:
    """Images are not decoded here: the stream of 1,000 image rows holds paths only."""
    config = DataConfig(
        mixture={"image_qa": DomainConfig(share=1.0, recipes=("mathvision", "tabmwp"))},
        root=shared / "data",
        prompts_per_step=8,
    )
    batch = ProblemStream(config, 0, PLAIN_TASKS).next_batch()
    assert all(isinstance(p.images[0], Path) and p.images[0].is_file() for p in batch)
    assert Counter(p.source for p in batch) == {"mathvision": 4, "tabmwp": 4}
