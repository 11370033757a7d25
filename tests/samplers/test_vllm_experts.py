"""Rows of vLLM's routers, given to the requests that they belong to; with a stand-in for vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vlrl.samplers.base import SamplerError
from vlrl.samplers.vllm_experts import ExpertListener, returned_experts


def listener(monkeypatch: pytest.MonkeyPatch) -> ExpertListener:
    """Of a model with three layers, the middle one without experts, and two experts a token."""

    def attach(self: Any, worker: Any) -> None:
        self._layers, self._shape, self._runner = [0, 2], (3, 2), SimpleNamespace()

    monkeypatch.setattr(ExpertListener, "_attach", attach)
    return ExpertListener(SimpleNamespace(collective_rpc=lambda method: method(None)))


def step(to: ExpertListener, requests: dict[str, tuple[int, int, int]], first: int) -> None:
    """A step of requests (prompt's length, tokens computed before, tokens now).

    The experts of its tokens are first, first + 1, ...
    """
    lengths = [now for _, _, now in requests.values()]
    to._runner.query_start_loc = SimpleNamespace(np=np.cumsum([0, *lengths]))
    to._runner.input_batch = SimpleNamespace(
        req_ids=list(requests),
        num_prompt_tokens=[prompt for prompt, _, _ in requests.values()],
        num_computed_tokens_cpu=[before for _, before, _ in requests.values()],
    )
    chosen = torch.arange(first, first + sum(lengths))[:, None].expand(-1, 2)
    for layer in to._layers:
        to._listen(layer, chosen + 100 * layer)


def test_each_response_gets_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    to = listener(monkeypatch)
    step(to, {"a": (3, 0, 3)}, first=0)  # a prompt
    step(to, {"a": (3, 3, 1), "b": (4, 2, 2)}, first=10)  # b's prompt was partly cached
    step(to, {"b": (4, 4, 1), "a": (3, 4, 1)}, first=20)
    assert to.take("a", 3)[:, 0].tolist() == [[10, 10], [21, 21]]
    found = to.take("b", 2)
    assert found.dtype == torch.int16
    assert found.tolist() == [[[20, 20], [-1, -1], [220, 220]]]


def test_a_preempted_response_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    to = listener(monkeypatch)
    step(to, {"a": (2, 0, 2)}, first=0)
    step(to, {"a": (2, 2, 1)}, first=5)
    step(to, {"a": (2, 0, 4)}, first=30)
    assert to.take("a", 3)[:, 0, 0].tolist() == [32, 33]


def test_tokens_that_were_not_seen_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    to = listener(monkeypatch)
    step(to, {"a": (2, 0, 2)}, first=0)
    assert to.take("a", 1).shape == (0, 3, 2)
    with pytest.raises(SamplerError, match="experts of 0 tokens were seen, not of 4"):
        to.take("a", 5)
    step(to, {"a": (2, 0, 3)}, first=0)
    to.forget()
    with pytest.raises(SamplerError, match="0 tokens"):
        to.take("a", 2)


def test_what_vllm_returns_itself() -> None:
    rows = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 3, 2)
    whole = SimpleNamespace(token_ids=[1, 2, 3], routed_experts=rows)
    assert torch.equal(returned_experts(whole), torch.as_tensor(rows[-2:].astype("int16")))
    for none in (None, rows[:1]):
        with pytest.raises(SamplerError, match=r"sampler\.experts=false"):
            returned_experts(SimpleNamespace(token_ids=[1, 2, 3], routed_experts=none))
