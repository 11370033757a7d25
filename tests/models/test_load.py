from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

from tests.tiny_groups import MEDIA, mixed_groups, packed_logprobs, plain_logprobs
from vlrl.models import load
from vlrl.models.load import ModelError, freeze, load_policy, load_processor, save_policy
from vlrl.models.random_tiny import TinySize, random_model


class NoProcessor:
    """Saving the processor is not what these tests are about."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "processor_was_here").touch()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", load.FAMILIES)
def test_saved_and_loaded_is_the_same_policy(family: str, tied: bool, tmp_path: Path) -> None:
    model = random_model(family, TinySize(tied=tied), MEDIA)
    save_policy(model, NoProcessor(), tmp_path)
    assert (tmp_path / "processor_was_here").exists()
    loaded = load_policy(str(tmp_path))
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    expected = dict(model.named_parameters())
    for candidate in (loaded, plain):
        found = dict(candidate.named_parameters())
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[n], expected[n]) for n in expected)
    groups = mixed_groups(model)
    packed, one_by_one = packed_logprobs(loaded, groups), plain_logprobs(plain, groups)
    for place, logprobs in one_by_one.items():
        torch.testing.assert_close(packed[place], logprobs, rtol=0, atol=1e-5)


def test_parameter_names_are_those_of_the_file(tmp_path: Path) -> None:
    """They are what the sampler is given by name."""
    model = random_model("qwen3_vl", TinySize(tied=True), MEDIA)
    save_policy(model, NoProcessor(), tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name, _ in model.named_parameters()}


def test_experts_are_saved_as_in_released_checkpoints(tmp_path: Path) -> None:
    """vLLM's loader wants [E, in, out]; transformers tells by the shapes, so none may be square."""
    model = random_model("qwen3_vl_moe", TinySize(), MEDIA)
    save_policy(model, NoProcessor(), tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = [name for name, _ in model.named_parameters() if ".experts." in name]
        assert len(names) == 2 * TinySize().num_layers
        for name in names:
            expected = model.get_parameter(name).transpose(1, 2)
            assert torch.equal(file.get_tensor(name), expected)
    model.config.text_config.moe_intermediate_size = TinySize().hidden
    with pytest.raises(ModelError, match="square"):
        load.check_family(model.config, "it")


@pytest.mark.parametrize("family", load.FAMILIES)
def test_parameter_names_begin_as_vllm_expects(family: str) -> None:
    """Qwen2's files keep older names; vLLM maps these as well ("saved after v4.52")."""
    model = random_model(family, TinySize(tied=False), MEDIA)
    prefixes = ("model.language_model.", "model.visual.", "lm_head.")
    assert all(name.startswith(prefixes) for name, _ in model.named_parameters())


def test_the_saved_config_says_nothing_of_our_attention(tmp_path: Path) -> None:
    model = random_model("qwen3_vl", TinySize(), MEDIA)
    save_policy(model, NoProcessor(), tmp_path)
    save_policy(load_policy(str(tmp_path)), NoProcessor(), tmp_path / "again")
    assert "vlrl" not in (tmp_path / "again" / "config.json").read_text()


def test_generation_still_works_after_loading(tmp_path: Path) -> None:
    save_policy(random_model("qwen3_vl", TinySize(), MEDIA), NoProcessor(), tmp_path)
    ids = torch.tensor([[1, 2, 3, 4]])
    outputs = [
        model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
        for model in (
            load_policy(str(tmp_path)),
            AutoModelForImageTextToText.from_pretrained(tmp_path),
        )
    ]
    assert torch.equal(*outputs)


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_policy(str(tmp_path))


def test_a_run_folder_names_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (50, 100):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
    with pytest.raises(ModelError, match=r"newest checkpoint of that run: .*step-000100"):
        load_policy(str(tmp_path))


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/folder", "tiny-qwen4-vl"])
def test_a_path_to_nothing_is_an_error(path: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_policy(path)


def test_a_hub_that_cant_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(load.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(ModelError, match=r"couldn't connect.*model\.path=FOLDER"):
        load_policy("Qwen/Qwen3-VL-2B-Instruct")


def test_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ModelError, match=r"'llava' can't be trained.*qwen2_vl, qwen2_5_vl"):
        load_policy(str(tmp_path))


@pytest.mark.parametrize(
    "family, kind",
    [
        ("qwen2_vl", "sliding_attention"),
        ("qwen3_vl", "linear_attention"),
        ("qwen3_5", "chunked_attention"),
    ],
)
def test_layers_of_an_unknown_kind_are_refused(family: str, kind: str) -> None:
    config = random_model(family, TinySize(), MEDIA).config
    load.check_family(config, "it")
    config.text_config.layer_types = ["full_attention", kind, "full_attention"]
    with pytest.raises(ModelError, match=f"{family} with layers of the kind {kind}"):
        load.check_family(config, "it")


def test_a_built_in_name_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_policy(random_model("qwen3_vl", TinySize(), MEDIA), NoProcessor(), tmp_path / "a-tiny")
    monkeypatch.setattr(load, "BUILTIN_ROOT", tmp_path)
    assert load_policy("a-tiny").config.model_type == "qwen3_vl"


def test_freezing_by_pattern() -> None:
    model = random_model("qwen3_vl", TinySize(), MEDIA)
    frozen = freeze(model, ["model.visual.*", "*.layers.0.*"])
    assert all(n.startswith("model.visual.") or ".layers.0." in n for n in frozen)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == set(frozen)
    with pytest.raises(ModelError, match="every parameter is frozen"):
        freeze(model, ["*"])


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("model.visul.*", "model.visual.*"),
        ("*.layer.0.*", "*.layers.0.*"),
        ("model.visual.mergr.*", "model.visual.merger.*"),
        ("*embed_token.weight", "model.language_model.embed_tokens.weight"),
    ],
)
def test_a_pattern_without_a_match_names_one_that_has(pattern: str, near: str) -> None:
    model = random_model("qwen3_vl", TinySize(), MEDIA)
    with pytest.raises(ModelError) as error:
        freeze(model, [pattern])
    assert f"near names: {near}" in str(error.value)
    assert freeze(model, [near])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}', "takes no images"),
        ('{"model_type": "foo_bar"}', "does not recognize this architecture"),
        ("{bad", "not a valid JSON file"),
    ],
)
def test_a_folder_of_another_kind_of_model_is_refused(
    tmp_path: Path, config: str, words: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=words):
        load_processor(str(tmp_path))
