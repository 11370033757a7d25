from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vlrl.shared_prefix import GroupSpan, Layout, build_layout, shared_prefix_attention

HEADS, KV_HEADS, SIZE = 4, 2, 8
SPANS = st.lists(
    st.builds(
        lambda prompt, responses: GroupSpan(
            prompt_length=prompt, response_lengths=tuple(responses)
        ),
        st.integers(1, 80),
        st.lists(st.integers(1, 50), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def dense_mask(spans: list[GroupSpan]) -> torch.Tensor:
    """[T, T]: the definition. A token sees earlier tokens of its prompt and of its response."""
    group = torch.cat([torch.full((s.num_tokens,), i) for i, s in enumerate(spans)])
    response = torch.cat(
        [
            torch.cat(
                [torch.zeros(s.prompt_length, dtype=torch.long)]
                + [torch.full((n,), i + 1) for i, n in enumerate(s.response_lengths)]
            )
            for s in spans
        ]
    )
    order = torch.arange(len(group))
    own = (response[:, None] == response) | (response == 0)
    return (order[:, None] >= order) & (group[:, None] == group) & own


def layout_of(spans: list[GroupSpan]) -> Layout:
    return build_layout(spans, dtype=torch.float32, device=torch.device("cpu"))


@settings(max_examples=25, deadline=None)
@given(spans=SPANS, seed=st.integers(0, 99))
def test_attention_and_its_gradients_are_those_of_the_dense_mask(
    spans: list[GroupSpan], seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    length = sum(span.num_tokens for span in spans)

    def random(heads: int) -> torch.Tensor:
        return torch.randn(1, heads, length, SIZE, generator=rng).requires_grad_()

    q, k, v = random(HEADS), random(KV_HEADS), random(KV_HEADS)
    expected = functional.scaled_dot_product_attention(
        q,
        k.repeat_interleave(HEADS // KV_HEADS, 1),
        v.repeat_interleave(HEADS // KV_HEADS, 1),
        attn_mask=dense_mask(spans),
    ).transpose(1, 2)
    module = SimpleNamespace(num_key_value_groups=HEADS // KV_HEADS)
    found, _ = shared_prefix_attention(
        module,  # type: ignore[arg-type]
        q,
        k,
        v,
        None,
        shared_prefix=layout_of(spans),
        scaling=SIZE**-0.5,
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(found.shape, generator=rng)
    gradients = torch.autograd.grad(found, (q, k, v), upstream)
    exact = torch.autograd.grad(expected, (q, k, v), upstream)
    for gradient, expected_gradient in zip(gradients, exact, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(spans=SPANS)
def test_every_token_has_one_slot_and_padding_is_bounded(spans: list[GroupSpan]) -> None:
    layout = layout_of(spans)
    num_tokens = sum(span.num_tokens for span in spans)
    assert layout.token_S[layout.slot_T].tolist() == list(range(num_tokens))
    for bucket in (*layout.prompts, *layout.responses):
        assert bucket.length > 0
    longest_excess = layout.token_S.numel() - num_tokens
    # Each row is padded by at most a quarter of itself and 16 slots.
    rows = sum(1 + len(span.response_lengths) for span in spans)
    assert longest_excess <= 0.25 * num_tokens + 16 * rows


def test_groups_of_one_shape_share_a_bucket_without_padding() -> None:
    span = GroupSpan(prompt_length=30, response_lengths=(8,) * 4)
    layout = layout_of([span] * 3)
    assert len(layout.prompts) == len(layout.responses) == 1
    assert layout.padding_share == 0
    assert layout.responses[0].bias.shape == (1, 1, 8, 38)
