"""oneDNN's products beside torch's own, where the processor would take them and where not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.invariants.test_update_exact import make_learner
from tests.test_learner import accumulated
from tests.tiny_groups import mixed_groups, tiny_model, worst_gradient_error
from vlrl.config import LossConfig
from vlrl.lean import products
from vlrl.lean.products import (
    MIN_ROWS,
    MIN_TURNED,
    FastLinear,
    linear,
    onednn_matmul,
    use_fast_products,
)

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)
ROWS = 5 * MIN_ROWS


@pytest.fixture(params=[True, False], ids=["onednn", "torch"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether products are oneDNN's, on whatever processor."""
    monkeypatch.setattr(products, "has_avx512_without_mkl", lambda: True)
    return request.param


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_matmul_agrees_with_float64(
    monkeypatch: pytest.MonkeyPatch, transposed: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(products, "has_avx512_without_mkl", lambda: True)
    a = random(24, ROWS).T if transposed[0] else random(ROWS, 24)
    b = random(40, 24).T if transposed[1] else random(24, 40)
    found = onednn_matmul(a, b)
    assert found.shape == (ROWS, 40)
    assert error(found, a.double() @ b.double()) < 1e-6


@pytest.mark.parametrize("sizes", [(24, 40), (40, 24), (24, MIN_TURNED), (MIN_TURNED, 24)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(ROWS,), (1, ROWS), (2, 3, ROWS)])
def test_gradients_agree_with_float64(
    fast: bool, shape: tuple[int, ...], has_bias: bool, sizes: tuple[int, int]
) -> None:
    inputs, outputs = sizes
    leaves = [random(*shape, inputs), random(outputs, inputs)]
    leaves += [random(outputs)] if has_bias else []
    weight = random(*shape, outputs)
    results = []
    run_fast = partial(linear, onednn=fast)
    for dtype, run in ((torch.float32, run_fast), (torch.float64, functional.linear)):
        own = [x.to(dtype).requires_grad_() for x in leaves]
        out = run(*own, *([] if has_bias else [None]))
        results.append([out, *torch.autograd.grad((out * weight.to(dtype)).sum(), own)])
    assert all(x.shape == y.shape for x, y in zip(*results, strict=True))
    assert max(error(x, y) for x, y in zip(*results, strict=True)) < 1e-6


def test_a_slice_of_a_row_and_frozen_weights(fast: bool) -> None:
    row, weight = random(1, 3 * ROWS, 24).requires_grad_(), random(40, 24)
    out = linear(row.chunk(3, dim=1)[1], weight, None, onednn=fast)
    (grad,) = torch.autograd.grad(out.sum(), [row])
    expected = torch.zeros(3 * ROWS, 24, dtype=torch.float64)
    expected[ROWS : 2 * ROWS] = weight.double().sum(dim=0)
    assert error(grad[0], expected) < 1e-6


@pytest.mark.parametrize("rows", [0, 1, MIN_ROWS - 1])
def test_few_rows_are_torchs_to_the_bit(fast: bool, rows: int) -> None:
    x, weight = random(rows, 24), random(40, 24)
    assert torch.equal(linear(x, weight, None, onednn=fast), functional.linear(x, weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torchs_to_the_bit(fast: bool, dtype: torch.dtype) -> None:
    x, weight = random(ROWS, 24, dtype=dtype), random(40, 24, dtype=dtype)
    assert torch.equal(linear(x, weight, None, onednn=fast), functional.linear(x, weight))


def test_a_learner_calls_onednn_where_asked_and_learns_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    plain = torch.ops.mkldnn._linear_pointwise

    def counted(*args: Any) -> torch.Tensor:
        calls.append(1)
        return plain(*args)

    monkeypatch.setattr(products, "has_avx512_without_mkl", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    results = []
    for choice in ("torch", "onednn"):
        agent = make_learner(tiny_model(), LossConfig(), (), products=choice)
        results.append(accumulated(agent, mixed_groups(agent.model))[1])
        assert bool(calls) == (choice == "onednn")
    assert worst_gradient_error(results[1], results[0]) < 1e-5


def test_a_models_linear_layers_and_nothing_else(fast: bool) -> None:
    model = tiny_model()
    before = {name: type(module) for name, module in model.named_modules()}
    names = list(model.state_dict())
    use_fast_products(model, onednn=fast)
    after = {name: type(module) for name, module in model.named_modules()}
    changed = {name for name in before if after[name] is not before[name]}
    assert changed == {name for name, kind in before.items() if kind is torch.nn.Linear}
    assert {after[name] for name in changed} == {FastLinear}
    assert list(model.state_dict()) == names
