from __future__ import annotations

from pathlib import Path

import pytest

from vlrl.config import ConfigError, RunConfig, dump, load, parse
from vlrl.resources import resource_folder, resource_names

SMALL = """
steps: 3
data: {mixture: {math_qa: {share: 1.0, recipes: [chain_sum]}}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def message(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(write(folder, text), overrides)
    return str(error.value)


def test_a_file_and_overrides_give_a_typed_config(tmp_path: Path) -> None:
    config = load(write(tmp_path, SMALL), ["learner.lr=1e-5", "loss.tau_neg=2", "steps=7"])
    assert (config.learner.lr, config.loss.tau_neg, config.steps) == (1e-5, 2.0, 7)
    assert config.loss.tau_pos == 1.0
    assert config.learner.minibatches >= 2, "with one the gate would do nothing"


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    text = message(tmp_path, SMALL + "learner: {learning_rat: 1, warmup_update: 3}\n")
    assert "run.yaml" in text
    assert "'learner.warmup_update': did you mean 'warmup_updates'?" in text
    assert "'learner.learning_rat'" in text
    assert "'sampler.temprature': did you mean 'temperature'?" in message(
        tmp_path, SMALL, "sampler.temprature=1"
    )
    assert "did you mean 'share'?" in message(
        tmp_path, "steps: 1\ndata: {mixture: {math_qa: {shar: 1.0, recipes: [a]}}}"
    )


def test_a_wrong_type_names_the_path_of_the_key(tmp_path: Path) -> None:
    text = message(tmp_path, SMALL, "learner.lr=fast", "steps=1.5")
    assert "key 'learner.lr'" in text and "'fast'" in text
    assert "key 'steps'" in text and "integer" in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.mixture.math_qa.share=0.5", "add up to 0.5, not 1"),
        ("learner.minibatches=64", "larger than data.prompts_per_step"),
        ("sampler.responses_per_prompt=1", "greater than or equal to 2"),
        ("learner.routing_replay=sampler", "needs sampler.experts=true"),
        ("images={min_pixels: 9, max_pixels: 4}", "min_pixels is larger than max_pixels"),
        ("eval.suites=gsm8k", "must be a list, such as [a, b] (given: 'gsm8k')"),
        ("data.mixture={}", "key 'data.mixture': must not be empty"),
        ("steps=[1", "not valid YAML: while parsing a flow sequence"),
        ("learner.lr", "write it as key=value"),
        ("steps.more=1", "is a value, not a section"),
    ],
)
def test_values_that_make_no_sense(tmp_path: Path, override: str, words: str) -> None:
    assert words in message(tmp_path, SMALL, override)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file"):
        load(tmp_path / "nothing.yaml")
    assert "line 2, column 1: not valid YAML" in message(tmp_path, "steps: [1\n")
    assert "stands twice" in message(tmp_path, SMALL + "steps: 4\n")
    assert "a mapping" in message(tmp_path, "- 1\n")


def test_the_saved_config_gives_the_same_run(tmp_path: Path) -> None:
    config = load(write(tmp_path, SMALL), ["learner.betas=[0.8, 0.9]", "out=runs/x", "seed=5"])
    dump(config, tmp_path / "saved.yaml")
    assert load(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize("name", resource_names("presets"))
def test_every_preset_is_valid(name: str) -> None:
    assert load(resource_folder("presets") / f"{name}.yaml").steps > 0


def test_a_config_is_frozen() -> None:
    config = parse({"steps": 1, "data": {"mixture": {"m": {"share": 1.0, "recipes": ["r"]}}}})
    assert isinstance(config, RunConfig)
    with pytest.raises(ValueError, match="frozen"):
        config.steps = 2  # type: ignore[misc]
