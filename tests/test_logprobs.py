from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlrl.logprobs import PolicyHead, token_logprobs


def reference(
    hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, head: PolicyHead
) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64, with the whole table and -inf."""
    logits = hidden @ weight.T / head.temperature
    logits[:, list(head.banned_token_ids)] = -torch.inf
    table = logits.log_softmax(dim=1)
    entropy = -(table.exp() * table).nan_to_num().sum(dim=1)
    return table.gather(1, target[:, None])[:, 0], entropy


@pytest.mark.parametrize("chunk", [1, 3, 8, 9, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_they_agree_with_float64(chunk: int, temperature: float) -> None:
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 16, generator=rng)
    weight = torch.randn(50, 16, generator=rng)
    target = torch.randint(4, 50, (9,), generator=rng)
    upstream = torch.randn(9, generator=rng)
    head = PolicyHead(temperature=temperature, banned_token_ids=(0, 3), chunk=chunk)

    hidden64, weight64 = hidden.double().requires_grad_(), weight.double().requires_grad_()
    expected, expected_entropy = reference(hidden64, weight64, target, head)
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), (hidden64, weight64))

    hidden.requires_grad_(), weight.requires_grad_()
    found, entropy = token_logprobs(hidden, weight, target, head)
    gradients = torch.autograd.grad((found * upstream).sum(), (hidden, weight))

    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), expected_entropy, rtol=1e-5, atol=1e-5)
    for gradient, exact in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-5)


def test_banned_tokens_have_no_probability_and_get_no_gradient() -> None:
    hidden = torch.randn(4, 8)
    weight = torch.randn(5, 8, requires_grad=True)
    target = torch.tensor([0, 2, 4, 0])
    head = PolicyHead(temperature=1.0, banned_token_ids=(1, 3), chunk=2)
    logprobs, entropy = token_logprobs(hidden, weight, target, head)
    logprobs.sum().backward()
    assert weight.grad is not None
    assert weight.grad[[1, 3]].eq(0).all()
    keep = [0, 2, 4]
    table = (hidden @ weight.detach()[keep].T).log_softmax(dim=1)
    torch.testing.assert_close(logprobs.detach(), table[range(4), [0, 1, 2, 0]])
    torch.testing.assert_close(entropy, -(table.exp() * table).sum(dim=1))


def test_frozen_weight_or_hidden_gets_no_gradient() -> None:
    hidden, weight = torch.randn(3, 4), torch.randn(6, 4, requires_grad=True)
    head = PolicyHead(temperature=1.0, banned_token_ids=(), chunk=2)
    logprobs, _ = token_logprobs(hidden, weight, torch.tensor([1, 2, 3]), head)
    logprobs.sum().backward()
    assert weight.grad is not None
    assert hidden.grad is None


def test_logits_of_any_size_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [2.0], [-1.0]])
    head = PolicyHead(temperature=0.5, banned_token_ids=(0,), chunk=1)
    logprobs, entropy = token_logprobs(hidden, weight, torch.tensor([2, 2]), head)
    logprobs.sum().backward()
    assert logprobs.tolist() == pytest.approx([-6e4, 0])
    assert entropy.tolist() == pytest.approx([0, 0], abs=1e-2)
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_tokens=st.integers(1, 40),
    vocabulary=st.integers(2, 70),
    chunk=st.integers(1, 50),
    temperature=st.floats(0.2, 2.0),
    banned_share=st.sampled_from([0.0, 0.3]),
    trained=st.sampled_from(["both", "hidden", "weight"]),
)
def test_no_chunk_changes_anything(
    seed: int,
    num_tokens: int,
    vocabulary: int,
    chunk: int,
    temperature: float,
    banned_share: float,
    trained: str,
) -> None:
    """Values and gradients agree with the whole table in float64, whatever is cut how."""
    rng = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, 12, generator=rng) for n in (num_tokens, vocabulary))
    banned = (torch.rand(vocabulary, generator=rng) < banned_share).nonzero()[:, 0].tolist()[1:]
    allowed = torch.tensor([token for token in range(vocabulary) if token not in banned])
    target = allowed[torch.randint(len(allowed), (num_tokens,), generator=rng)]
    upstream = torch.randn(num_tokens, generator=rng)
    head = PolicyHead(temperature=temperature, banned_token_ids=tuple(banned), chunk=chunk)

    def run(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
        inputs = [tensor.to(dtype, copy=True) for tensor in (hidden, weight)]
        for tensor, name in zip(inputs, ("hidden", "weight"), strict=True):
            tensor.requires_grad_(trained in ("both", name))
        compute = reference if dtype == torch.float64 else token_logprobs
        logprobs, entropy = compute(inputs[0], inputs[1], target, head)
        (logprobs * upstream).sum().backward()
        return [logprobs.double(), entropy.double()], [tensor.grad for tensor in inputs]

    (values, gradients), (exact, exact_gradients) = run(torch.float32), run(torch.float64)
    for found, expected in zip(values, exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    for found, expected in zip(gradients, exact_gradients, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=5e-5)
