"""Outputs and gradients are those of torch's own fused attention, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vlrl.lean.attention import Kept, attend, whole_row

WHOLE = whole_row(37, torch.device("cpu"))


def tensors(heads: int, key_heads: int, dtype: torch.dtype) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    sizes = ((37, heads, 16), (37, key_heads, 16), (37, key_heads, 16), (37, heads, 16))
    return [torch.randn(*size, generator=rng).to(dtype) for size in sizes]


def gradients(*, kept: Kept | None = None) -> list[torch.Tensor]:
    q, k, v, weight = tensors(4, 2, torch.float32)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    if kept is None:
        out = attend(*leaves, WHOLE, None)
    else:
        with kept.time(replays=False):
            once = attend(*leaves, WHOLE, None)
        with kept.time(replays=True):
            out = attend(*leaves, WHOLE, None)
        assert out.data_ptr() == once.data_ptr(), "attended again"
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_as_torch_does(dtype: torch.dtype, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        q, k, v, weight = tensors(4, 2, dtype)
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out = attend(*leaves, WHOLE, 0.3)
        found = torch.autograd.grad((out * weight).sum(), leaves)
        rows = [x.transpose(0, 1)[None] for x in leaves]
        plain = functional.scaled_dot_product_attention(*rows, scale=0.3, enable_gqa=True)
        plain = plain[0].transpose(0, 1)
        expected = torch.autograd.grad((plain * weight).sum(), leaves)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, plain)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_part_that_is_computed_again_does_not_attend_again() -> None:
    for found, expected in zip(gradients(kept=Kept()), gradients(), strict=True):
        assert torch.equal(found, expected)
