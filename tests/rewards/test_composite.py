from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builtin import small_config
from vlrl.advantage import group_advantages
from vlrl.config import ConfigError, dump, load, parse
from vlrl.rewards import PLAIN, RewardRules, open_rules, reward
from vlrl.rewards.parts import PARTS
from vlrl.rewards.rules import PART_NAMES
from vlrl.scores import score_domain
from vlrl.tasks.common import judged
from vlrl.types import Attempt, Completion, Finish, Group, Problem, Prompt, Status, Verdict

PROBLEM = Problem(id="p", domain="math_qa", question="2 + 2?", answer="4", source="gsm8k")
RIGHT, WRONG = judged(True, "4"), judged(False, "5")


def completion(text: str = "4", tokens: int = 10, finish: Finish = Finish.STOP) -> Completion:
    return Completion(text=text, token_ids=(7,) * tokens, logprobs=(-1.0,) * tokens, finish=finish)


def rules(tmp_path: Path = Path("runs/none"), **rewards: Any) -> RewardRules:
    return open_rules(small_config(tmp_path, "sampler.max_tokens=100", rewards=rewards))


@pytest.mark.parametrize("plain", [PLAIN, rules(), rules(domains={"math_qa": {"correct": 1.0}})])
def test_by_default_a_verdict_is_its_own_reward_to_the_bit(plain: RewardRules) -> None:
    for verdict in (RIGHT, WRONG, replace(RIGHT, reward=0.1 + 0.2)):
        assert reward(PROBLEM, completion(), verdict, plain) is verdict


def test_parts_are_weighed_and_add_up_to_the_reward() -> None:
    mixed = rules(correct=0.8, boxed=0.2, overlong=0.5)
    text = "so \\boxed{4}"
    found = reward(PROBLEM, completion(text, tokens=90), RIGHT, mixed)
    assert found.parts == pytest.approx({"correct": 0.8, "boxed": 0.2, "overlong": -0.25})
    assert found.reward == pytest.approx(0.75) == pytest.approx(sum(found.parts.values()))
    assert (found.correct, found.parsed, found.status) == (True, "4", Status.OK)
    unboxed = reward(PROBLEM, completion("4"), WRONG, mixed)
    assert (unboxed.reward, unboxed.correct) == (0.0, False)
    # A wrong answer in the right form gets something and is still wrong.
    assert reward(PROBLEM, completion(text), WRONG, mixed).reward == pytest.approx(0.2)
    assert not reward(PROBLEM, completion(text), WRONG, mixed).correct


def test_a_verifiers_own_breakdown_is_kept_beside_the_parts() -> None:
    verdict = Verdict(status=Status.OK, correct=False, reward=0.5, parts={"iou": 0.5})
    found = reward(PROBLEM, completion(), verdict, rules(correct=2.0))
    assert found.parts == {"correct": 1.0, "verifier/iou": 0.5}
    assert found.reward == 1.0


def test_a_failed_verifiers_verdict_stays_untouched() -> None:
    failed = Verdict(status=Status.ERROR, correct=False, reward=0.0, note="down")
    cut = completion(finish=Finish.LENGTH)
    assert reward(PROBLEM, cut, failed, rules(overlong=1.0, truncated="mask")) is failed


def test_recipes_depart_from_domains_and_domains_from_the_general_rule() -> None:
    routed = rules(
        boxed=0.1,
        domains={"math_qa": {"overlong": 1.0}},
        recipes={"chain_sum": {"boxed": 0.0, "truncated": "mask"}},
    )

    def weights(domain: str, source: str) -> dict[str, float]:
        return dict(routed.of(replace(PROBLEM, domain=domain, source=source)).weights)

    assert weights("logic", "knights_knaves_2") == {"correct": 1.0, "boxed": 0.1}
    assert weights("math_qa", "another") == {"correct": 1.0, "boxed": 0.1, "overlong": 1.0}
    assert weights("math_qa", "chain_sum") == {"correct": 1.0, "overlong": 1.0}
    assert routed.recipes["chain_sum"].truncated == "mask"
    assert routed.domains["math_qa"].truncated == "score"


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ({"boxd": 0.1}, "unknown key 'rewards.boxd': did you mean 'boxed'?"),
        (
            {"domains": {"math_qa": {"languge": 1.0}}},
            "'rewards.domains.math_qa.languge': did you mean 'language'?",
        ),
        ({"domains": {"maths_qa": {}}}, "'rewards.domains.maths_qa': nothing in data.mixture"),
        ({"domains": {"maths_qa": {}}}, "did you mean 'math_qa'"),
        ({"recipes": {"chain_sums": {}}}, "did you mean 'chain_sum'?"),
        ({"recipes": {"gsm8k": {}}}, "'rewards.recipes.gsm8k': nothing in data.mixture"),
        ({"boxed": -0.1}, "key 'rewards.boxed'"),
        ({"boxed": float("inf")}, "key 'rewards.boxed'"),
        ({"truncated": "drop"}, "key 'rewards.truncated'"),
        ({"correct": 0.0}, "key 'rewards': every part's weight is 0"),
        ({"overlong": 1.0, "overlong_buffer": 101}, "101 is more than sampler.max_tokens=100"),
    ],
)
def test_mistakes_are_named(rewards: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        rules(**rewards)
    assert words in str(error.value)


def test_every_part_has_a_name_and_a_key() -> None:
    assert {"correct", *PARTS} == set(PART_NAMES)
    config = parse({"steps": 1, "data": {"mixture": {"m": {"share": 1.0, "recipes": ["r"]}}}})
    weights = {name: getattr(config.rewards, name) for name in PART_NAMES}
    assert weights == {**dict.fromkeys(PARTS, 0.0), "correct": 1.0}, "all but correctness is off"


def test_a_saved_config_has_the_same_rules(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, rewards={"boxed": 0.1, "recipes": {"chain_sum": {"think": 0.2}}}
    )
    dump(config, tmp_path / "saved.yaml")
    assert open_rules(load(tmp_path / "saved.yaml")) == open_rules(config)


@pytest.mark.parametrize(
    ("truncated", "right", "wrong", "masked"),
    [("score", 0.2, -0.8, False), ("zero", -1.0, -1.0, False), ("mask", 0.2, -0.8, True)],
)
def test_truncated_responses(truncated: str, right: float, wrong: float, masked: bool) -> None:
    cut = completion("\\boxed{4}", tokens=100, finish=Finish.LENGTH)
    rule = rules(boxed=0.2, overlong=1.0, truncated=truncated)
    for verdict, wanted in ((RIGHT, right), (WRONG, wrong)):
        found = reward(PROBLEM, cut, verdict, rule)
        assert found.reward == pytest.approx(wanted)
        assert (found.masked, found.correct) == (masked, verdict.correct)
    assert not reward(PROBLEM, completion(), RIGHT, rule).masked, "it wasn't truncated"


def test_masked_attempts_count_in_evals_and_not_in_advantages() -> None:
    masked = replace(RIGHT, masked=True)
    group = Group(
        problem=PROBLEM,
        prompt=Prompt(token_ids=(1,)),
        attempts=[
            Attempt(completion=completion(), verdict=v) for v in (RIGHT, masked, WRONG, WRONG)
        ],
    )
    assert len(group.scored) == 4 and len(group.learnable) == 3
    advantages = group_advantages(group)
    assert advantages is not None and len(advantages) == 3
    assert sum(advantages) == pytest.approx(0.0)
    assert score_domain([group]).pass_at_1.mean == 0.5


def test_the_example_of_the_docs_is_a_config() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "rewards.md"
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    mixture = {
        "coding": {"share": 0.5, "recipes": ["mbpp"]},
        "math_qa": {"share": 0.5, "recipes": ["gsm8k"]},
    }
    config = parse({"steps": 1, "data": {"mixture": mixture}, **yaml.safe_load(example)})
    found = open_rules(config)
    assert found.recipes["gsm8k"].weights == {
        "correct": 1.0,
        "boxed": 0.1,
        "think": 0.1,
        "overlong": 0.5,
    }
    assert (found.recipes["gsm8k"].truncated, found.domains["coding"].truncated) == (
        "score",
        "mask",
    )
