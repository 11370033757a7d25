"""The attention that is written out computes what the fused one does, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlrl.lean import attention
from vlrl.lean.plain_attention import plain_attention, plain_gradients
from vlrl.shared_prefix import GroupSpan, build_layout

SPANS = (
    GroupSpan(prompt_length=9, response_lengths=(4, 30, 7)),
    GroupSpan(prompt_length=21, response_lengths=(30, 2)),
)


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
)
def test_outputs_and_gradients_are_the_fused_kernels(
    dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = build_layout(SPANS, dtype=dtype, device=torch.device("cpu")).calls
    assert any(call.bias is not None for call in calls)
    length = sum(span.num_tokens for span in SPANS)
    rng = torch.Generator().manual_seed(0)
    q, k, v, weight = (
        torch.randn(length, heads, 16, generator=rng).to(dtype) for heads in (4, 2, 2, 4)
    )

    def run() -> list[Any]:
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attention.attend(*leaves, calls, 0.3)
        return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]

    expected = run()
    monkeypatch.setattr(attention, "_FORWARD", plain_attention)
    monkeypatch.setattr(attention, "_BACKWARD", plain_gradients)
    for found, exact in zip(run(), expected, strict=True):
        assert float((found - exact).norm() / exact.norm()) < limit
