"""Products of matrices: on a CPU by the faster of torch's two libraries, and of two types.

torch multiplies fp32 matrices with MKL, which has AVX-512 for Intel's processors alone and takes
AVX2 on others that have it too; there oneDNN is twice as fast (scripts/bench_products.py). It keeps
a kernel for each shape. To make one costs about what a product of 800 rows does, and memory that
the heap doesn't get back whole: `learner.products: onednn` is for rows of few lengths.

Inputs may be float32 where weights are bfloat16 (models/wide.py): they are rounded to the weights'
type, and the product's float32 sums are not.

Shapes: T rows, E inputs, F outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

Products = Literal["torch", "onednn"]
MIN_ROWS = 32
"""With fewer oneDNN's calls take longer than the product."""
MIN_TURNED = 256
"""Inputs or outputs of a layer from which on oneDNN's gradient of its weights is the faster one."""
_chosen: Products = "torch"
"""Of this process: what the last `use_fast_products` said."""
_DTYPE = torch.float32
"""The only one that MKL multiplies and oneDNN could: of bfloat16 torch takes oneDNN itself."""


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b, of matrices; without gradient."""
    return _onednn(a, b.T) if _is_faster(a) else a @ b


def wide_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The same; of bfloat16 matrices in float32."""
    if a.dtype != torch.bfloat16:
        return matmul(a, b)
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return matmul(a.float(), b.float())


def use_fast_products(model: torch.nn.Module, products: Products = "torch") -> None:
    """Exchange the class of a model's linear layers, no more; names of parameters stay.

    products: onednn, to call it where it is faster; of all products of this process.
    """
    global _chosen
    _chosen = products
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = FastLinear


def is_linear(module: torch.nn.Module | None) -> bool:
    """Whether it is a linear layer and nothing more (no adapter, no quantised weight)."""
    return type(module) in (torch.nn.Linear, FastLinear)


class FastLinear(torch.nn.Linear):
    """Computes as `torch.nn.Linear` does, up to rounding; of float32 inputs even if its weights are
    bfloat16."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As torch.nn.Linear's."""
        return linear(input, self.weight, self.bias)


def linear(
    x: torch.Tensor, weight_FE: torch.Tensor, bias_F: torch.Tensor | None = None
) -> torch.Tensor:
    """torch.nn.functional.linear: [..., E] -> [..., F], with gradient."""
    if x.dtype != weight_FE.dtype:
        return _MixedLinear.apply(x, weight_FE, bias_F)
    if not _is_faster(x):
        return functional.linear(x, weight_FE, bias_F)
    return _Linear.apply(x, weight_FE, bias_F)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_FE: torch.Tensor, bias_F: Any) -> torch.Tensor:
        ctx.save_for_backward(x, weight_FE)
        return _onednn(x, weight_FE, bias_F)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight_FE = ctx.saved_tensors
        return linear_gradients(grads[0], x, weight_FE, ctx.needs_input_grad)


class _MixedLinear(torch.autograd.Function):
    """Keeps its input as it was multiplied: in the weights' type."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_FE: torch.Tensor, bias_F: Any) -> torch.Tensor:
        narrow = x.to(weight_FE.dtype)
        ctx.save_for_backward(narrow, weight_FE)
        out_TF = wide_matmul(narrow.flatten(0, -2), weight_FE.T)
        if bias_F is not None:
            out_TF += bias_F
        return out_TF.view(*x.shape[:-1], weight_FE.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight_FE = ctx.saved_tensors
        return linear_gradients(grads[0], x, weight_FE, ctx.needs_input_grad)


def linear_gradients(
    grad: torch.Tensor, x: torch.Tensor, weight_FE: torch.Tensor, wanted: tuple[bool, ...]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Of a linear layer's inputs, weight and bias, as far as they are wanted: the inputs' in the
    outputs' type, the others' in the weights'."""
    dtype = weight_FE.dtype
    product = matmul if grad.dtype == dtype else wide_matmul
    grad_TF, x_TE = grad.flatten(0, -2), x.flatten(0, -2).to(dtype)
    grad_bias = grad_TF.sum(dim=0).to(dtype) if wanted[2] else None
    grad_TF = grad_TF.to(dtype)
    grad_x = product(grad_TF, weight_FE).view(x.shape) if wanted[0] else None
    grad_weight = None
    if wanted[1]:
        grad_weight = _product_over_rows(grad_TF, x_TE, product).to(dtype)
    return grad_x, grad_weight, grad_bias


def _product_over_rows(
    grad_TF: torch.Tensor, x_TE: torch.Tensor, product: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """grad_TF.T @ x_TE. oneDNN first turns the matrix on the left, by one thread: let it be the
    smaller one, and the other so much larger that it pays."""
    outputs, inputs = grad_TF.shape[1], x_TE.shape[1]
    if product is matmul and max(outputs, inputs) < MIN_TURNED:
        return grad_TF.T @ x_TE
    return product(x_TE.T, grad_TF).T if outputs > inputs else product(grad_TF.T, x_TE)


def _onednn(x: torch.Tensor, weight_FE: torch.Tensor, bias_F: Any = None) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_FE, bias_F, "none", [], "")
    return found


def _is_faster(x: torch.Tensor) -> bool:
    if _chosen != "onednn" or x.device.type != "cpu" or x.dtype != _DTYPE:
        return False
    if not _has_avx512_without_mkl():
        return False
    return x.numel() >= MIN_ROWS * x.shape[-1] > 0


@cache
def _has_avx512_without_mkl() -> bool:
    """A processor with AVX-512 that isn't Intel's, and a torch with oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    processor = Path("/proc/cpuinfo")
    is_intel = not processor.is_file() or "GenuineIntel" in processor.read_text(encoding="utf-8")
    return not is_intel and torch.backends.mkldnn.is_available()
