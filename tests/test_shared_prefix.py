from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vlrl.lean.attention import Rows
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
def test_every_pair_is_computed_once_and_padding_is_bounded(spans: list[GroupSpan]) -> None:
    layout = layout_of(spans)
    num_tokens = sum(span.num_tokens for span in spans)
    seen = torch.zeros(num_tokens, num_tokens, dtype=torch.long)
    for call in layout.calls:
        for row in range(call.queries.num):
            queries, keys = own_tokens(call.queries, row), own_tokens(call.keys, row)
            pairs = torch.ones(len(queries), len(keys), dtype=torch.long)
            seen[queries[:, None], keys] += pairs.tril() if call.causal else pairs
    assert torch.equal(seen, dense_mask(spans).long())
    # Each row is padded by at most a quarter of itself and 16 places.
    places = sum(call.queries.num * call.queries.length for call in layout.calls)
    responses = sum(sum(span.response_lengths) for span in spans)
    rows = sum(2 + len(span.response_lengths) for span in spans)
    assert places <= 1.25 * (num_tokens + responses) + 16 * rows


def own_tokens(rows: Rows, row: int) -> torch.Tensor:
    """A row's tokens without padding, in order."""
    is_own = rows.place_A // rows.length == row
    return rows.token_NL[rows.place_A[is_own]]


def test_groups_of_one_shape_share_calls_without_padding() -> None:
    span = GroupSpan(prompt_length=30, response_lengths=(8,) * 4)
    layout = layout_of([span] * 3)
    assert [(call.queries.num, call.queries.length) for call in layout.calls] == [
        (3, 30),
        (12, 8),
        (3, 32),
    ]
    assert layout.padding_share == 0
    assert all(call.bias is None for call in layout.calls)


def test_a_groups_own_tokens_are_not_copied() -> None:
    span = GroupSpan(prompt_length=30, response_lengths=(8,) * 4)
    row_T = torch.arange(span.num_tokens)
    for call in layout_of([span]).calls:
        for rows in (call.queries, call.keys):
            assert rows.take(row_T).untyped_storage().data_ptr() == row_T.data_ptr()
