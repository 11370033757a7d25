"""FlexAttention's mask against a dense one, and its results against the gathered buckets'.

Uncompiled, on the CPU: the compiled kernel needs a GPU.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as torch_flex

from tests.tiny_groups import gradients, mixed_groups, packed_logprobs, tiny_model
from vlrl import shared_prefix
from vlrl.flex_prefix import BLOCK, build_flex_layout, mask_mod, padded_length
from vlrl.shared_prefix import Layout, row_layout
from vlrl.spans import GroupSpan

CPU = torch.device("cpu")
spans = st.lists(
    st.builds(
        lambda prompt, responses: GroupSpan(
            prompt_length=prompt, response_lengths=tuple(responses)
        ),
        st.integers(1, 300),
        st.lists(st.integers(1, 140), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=3,
)


def dense(groups: list[GroupSpan], length: int) -> torch.Tensor:
    """The mask [L, L] by its definition; a padding token sees itself."""
    mask = torch.eye(length, dtype=torch.bool)
    start = 0
    for group in groups:
        prompt = slice(start, start + group.prompt_length)
        mask[prompt, prompt] = torch.ones(group.prompt_length, group.prompt_length).tril().bool()
        start = prompt.stop
        for response in group.response_lengths:
            own = slice(start, start + response)
            mask[own, prompt] = True
            mask[own, own] = torch.ones(response, response).tril().bool()
            start = own.stop
    return mask


@settings(max_examples=15, deadline=None)
@given(groups=spans)
def test_the_mask_is_the_dense_one(groups: list[GroupSpan]) -> None:
    layout = build_flex_layout(groups, device=CPU)
    length = layout.seen_L3.shape[0]
    assert length == padded_length(layout.num_tokens)
    expected = dense(groups, length)
    index = torch.arange(length)
    found = mask_mod(layout.seen_L3)(0, 0, index[:, None], index[None])
    assert torch.equal(found, expected)
    blocks = expected.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    assert torch.equal(layout.mask.to_dense()[0, 0].bool(), blocks.any(dim=3).any(dim=1))
    assert layout.mask.full_kv_num_blocks is not None
    full = layout.mask.full_kv_num_blocks[0, 0]
    assert torch.equal(full, blocks.all(dim=3).all(dim=1).sum(dim=1, dtype=torch.int32))


def test_few_lengths_to_compile() -> None:
    assert {padded_length(n) for n in range(1, 32769)} == {1024, 2048, 4096, 8192, 16384, 32768}


def test_the_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    row = [GroupSpan(prompt_length=3, response_lengths=(2,))]
    assert isinstance(row_layout(row, dtype=torch.float32, device=CPU), Layout)
    here = build_flex_layout(row, device=CPU)
    assert here.padding_share == 1 - 5 / 1024
    monkeypatch.setattr(shared_prefix, "build_flex_layout", lambda spans, device: here)
    assert row_layout(row, dtype=torch.float32, device=torch.device("cuda")) is here


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe"])
def test_flex_equals_buckets(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses gradients of FlexAttention on a CPU for the sake of compiled ones only."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    model = tiny_model(family)
    groups = mixed_groups(model)
    expected = packed_logprobs(model, groups, kernel="buckets")
    found = packed_logprobs(model, groups, kernel="flex")
    for place, logprobs in expected.items():
        torch.testing.assert_close(found[place], logprobs, rtol=0, atol=1e-5)
    weights = [1 + 0.3 * i for i in range(len(expected))]
    totals = [
        torch.stack([w * x.mean() for w, x in zip(weights, places.values(), strict=True)]).sum()
        for places in (found, expected)
    ]
    ours, theirs = (gradients(model, total) for total in totals)
    largest = max(float(g.norm()) for g in theirs.values())
    for name, gradient in theirs.items():
        error = float((ours[name] - gradient).norm())
        assert error < 1e-5 * max(float(gradient.norm()), 1e-6 * largest), name
