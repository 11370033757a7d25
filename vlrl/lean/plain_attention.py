"""Attention written out, for where torch's fused CPU kernel isn't: same arguments and results.

Scores are held whole, a call's heads at a time. Shapes as in attention.py.
"""

from __future__ import annotations

import torch


def plain_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout: float,
    causal: bool,
    *,
    attn_mask: torch.Tensor | None,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [N, H, L, D], and the logarithms [N, H, L] of the weights' sums, fp32 at least."""
    scores = _scores(q, k, causal, attn_mask, scale)
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp_().to(v.dtype)
    return weights @ _each(v, q.shape[1]), lse


def plain_gradients(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    dropout: float,
    causal: bool,
    *,
    attn_mask: torch.Tensor | None,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of q, k and v, given that of the outputs."""
    num_heads, num_keys = q.shape[1], k.shape[1]
    weights = (_scores(q, k, causal, attn_mask, scale) - lse[..., None]).exp_()
    grad_v = weights.to(v.dtype).transpose(2, 3) @ grad
    own = (grad * out).to(lse.dtype).sum(dim=-1, keepdim=True)
    by_weight = (grad @ _each(v, num_heads).transpose(2, 3)).to(lse.dtype)
    by_score = (weights.mul_(by_weight - own).mul_(_scale(q, scale))).to(q.dtype)
    grad_q = by_score @ _each(k, num_heads)
    grad_k = by_score.transpose(2, 3) @ q
    shared = [x.unflatten(1, (num_keys, -1)).sum(dim=2) for x in (grad_k, grad_v)]
    return grad_q, shared[0], shared[1]


def _scores(
    q: torch.Tensor,
    k: torch.Tensor,
    causal: bool,
    bias: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    scores = q @ _each(k, q.shape[1]).transpose(2, 3)
    scores = scores.to(torch.promote_types(q.dtype, torch.float32)).mul_(_scale(q, scale))
    if bias is not None:
        scores += bias
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores.masked_fill_(later, -torch.inf)
    return scores


def _scale(q: torch.Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _each(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Key-value heads as often as query heads share them."""
    return x.repeat_interleave(num_heads // x.shape[1], dim=1)
