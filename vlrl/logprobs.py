"""Log-probs and entropies from hidden states, in chunks: [tokens, vocabulary] is never held whole.

The policy is softmax(logits / temperature) with banned tokens at no probability, in fp32; the
sampler's is the same. The backward pass computes a chunk's logits again instead of keeping them,
save for the last chunk's, with which it begins.

Shapes: R response tokens, C tokens of a chunk, V vocabulary, E hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlrl.lean.products import Product, product_of

BANNED_LOGIT = -1e30
"""Stands for -inf: its probability is exactly 0 and 0 * BANNED_LOGIT is still 0."""


@dataclass(frozen=True, kw_only=True)
class PolicyHead:
    """What turns logits into the policy that was sampled, and how many tokens at once.

    onednn: whether that library multiplies (lean/products.py).
    """

    temperature: float
    banned_token_ids: tuple[int, ...]
    chunk: int
    onednn: bool = False


def token_logprobs(
    hidden_RE: torch.Tensor, weight_VE: torch.Tensor, target_R: torch.Tensor, head: PolicyHead
) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 log-probs [R] of the targets, with gradient, and entropies [R] in nats, without."""
    return _TokenLogprobs.apply(hidden_RE, weight_VE, target_R, head)


class _TokenLogprobs(torch.autograd.Function):
    """d logprob / d logits = (one-hot - softmax) / temperature, with the softmax made again.

    A second backward through the same graph is not supported (the kept chunk is used up).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_RE: torch.Tensor,
        weight_VE: torch.Tensor,
        target_R: torch.Tensor,
        head: PolicyHead,
    ) -> Any:
        given_dtype = hidden_RE.dtype
        # float32 between products (models/wide.py) is float32 logits too.
        product = product_of(hidden_RE, weight_VE, onednn=head.onednn)
        hidden_RE = hidden_RE.to(weight_VE.dtype)
        logprobs_R = hidden_RE.new_empty(target_R.shape, dtype=torch.float32)
        entropy_R = torch.empty_like(logprobs_R)
        normaliser_R = torch.empty_like(logprobs_R)
        softmax_CV = None
        for rows in _chunks(target_R.numel(), head.chunk):
            logits_CV = _logits(hidden_RE[rows], weight_VE, head, product)
            target_logits_C = logits_CV.gather(1, target_R[rows, None])[:, 0]
            top_C = logits_CV.amax(dim=1)
            weights_CV = (logits_CV - top_C[:, None]).exp_()
            total_C = weights_CV.sum(dim=1)
            normaliser_R[rows] = top_C + total_C.log()
            logprobs_R[rows] = target_logits_C - normaliser_R[rows]
            softmax_CV = weights_CV.div_(total_C[:, None])
            entropy_R[rows] = normaliser_R[rows] - (logits_CV.mul_(softmax_CV)).sum(dim=1)
        # The backward pass starts here: keeping the last chunk's softmax costs no more at the peak.
        keeps_last = any(ctx.needs_input_grad)
        ctx.softmax_CV = softmax_CV if keeps_last else None
        ctx.save_for_backward(hidden_RE, weight_VE, target_R, normaliser_R)
        ctx.head, ctx.dtype, ctx.product = head, given_dtype, product
        ctx.mark_non_differentiable(entropy_R)
        return logprobs_R, entropy_R

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden_RE, weight_VE, target_R, normaliser_R = ctx.saved_tensors
        head: PolicyHead = ctx.head
        grad_R: torch.Tensor = grads[0]
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden_RE = torch.empty_like(hidden_RE, dtype=ctx.dtype) if wants_hidden else None
        # Summed over chunks in fp32, whatever the weights' dtype.
        grad_weight_VE = torch.zeros_like(weight_VE, dtype=torch.float32) if wants_weight else None
        softmax_CV, ctx.softmax_CV = ctx.softmax_CV, None
        for rows in reversed(_chunks(target_R.numel(), head.chunk)):
            if softmax_CV is None:
                logits_CV = _logits(hidden_RE[rows], weight_VE, head, ctx.product)
                softmax_CV = logits_CV.sub_(normaliser_R[rows, None]).exp_()
            scale_C = grad_R[rows] / head.temperature
            grad_CV = softmax_CV.mul_(-scale_C[:, None])
            softmax_CV = None
            grad_CV.scatter_add_(1, target_R[rows, None], scale_C[:, None])
            grad_CV = grad_CV.to(hidden_RE.dtype)
            if grad_hidden_RE is not None:
                grad_hidden_RE[rows] = ctx.product(grad_CV, weight_VE)
            if grad_weight_VE is not None:
                grad_weight_VE += ctx.product(grad_CV.T, hidden_RE[rows])
        if grad_weight_VE is not None:
            grad_weight_VE = grad_weight_VE.to(weight_VE.dtype)
        return grad_hidden_RE, grad_weight_VE, None, None


def _logits(
    hidden_CE: torch.Tensor, weight_VE: torch.Tensor, head: PolicyHead, product: Product
) -> torch.Tensor:
    logits_CV = product(hidden_CE, weight_VE.T).float()
    if head.temperature != 1.0:
        logits_CV = logits_CV.div_(head.temperature)
    if head.banned_token_ids:
        logits_CV[:, _index(head.banned_token_ids, logits_CV.device)] = BANNED_LOGIT
    return logits_CV


def _index(token_ids: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(token_ids, device=device)


def _chunks(num_rows: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, num_rows, chunk)]
