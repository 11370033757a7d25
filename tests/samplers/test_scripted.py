"""The scripted sampler says what its script says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.samplers import tiny_models as tiny
from vlrl.samplers.base import SamplingParams
from vlrl.samplers.scripted import ScriptedSampler
from vlrl.types import Finish


def test_answers_from_a_function_and_from_a_mapping(tmp_path: Path) -> None:
    _, chat = tiny.build(tmp_path, tied=True)
    prompts = tiny.prompts(chat)
    params = SamplingParams(n=4, max_tokens=8, seed=1)
    by_function = ScriptedSampler(chat, lambda p: [f"{len(p.image_keys)} pictures"])
    texts = [{c.text for c in group} for group in by_function.sample(prompts, params)]
    assert texts == [{"0 pictur"}, {"1 pictur"}, {"3 pictur"}]

    by_text = ScriptedSampler(chat, {"many": ["a", "b"], "Which": ["red"]})
    first, second = by_text.sample(prompts[:2], params)
    assert sorted(c.text for c in first) == ["a", "a", "b", "b"]
    assert {(c.text, c.finish, len(c.token_ids)) for c in second} == {("red", Finish.STOP, 4)}
    with pytest.raises(LookupError, match="Spot it"):
        by_text.sample(prompts[2:], params)
