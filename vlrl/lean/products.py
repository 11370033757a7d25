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
from typing import Any

import torch
from torch.nn import functional

MIN_ROWS = 32
"""With fewer oneDNN's calls take longer than the product."""
MIN_TURNED = 256
"""Inputs or outputs of a layer from which on oneDNN's gradient of its weights is the faster one."""
_DTYPE = torch.float32
"""The only one that MKL multiplies and oneDNN could: of bfloat16 torch takes oneDNN itself."""

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of two matrices, without gradient."""


def onednn_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b, by oneDNN where that is faster."""
    if a.device.type != "cpu" or a.dtype != _DTYPE or a.shape[0] < MIN_ROWS or not a.numel():
        return a @ b
    if not has_avx512_without_mkl():
        return a @ b
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return found


def wide_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b, of bfloat16 matrices in float32."""
    if a.dtype != torch.bfloat16:
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def product_of(x: torch.Tensor, weight: torch.Tensor, *, onednn: bool) -> Product:
    """How inputs are multiplied with weights: they may be wider than these."""
    if x.dtype != weight.dtype:
        return wide_matmul
    return onednn_matmul if onednn else torch.matmul


@cache
def has_avx512_without_mkl() -> bool:
    """A processor with AVX-512 that isn't Intel's, and a torch with oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    processor = Path("/proc/cpuinfo")
    is_intel = not processor.is_file() or "GenuineIntel" in processor.read_text(encoding="utf-8")
    return not is_intel and torch.backends.mkldnn.is_available()


class FastLinear(torch.nn.Linear):
    """Computes as `torch.nn.Linear` does, up to rounding; of float32 inputs even if its weights are
    bfloat16."""

    onednn = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As torch.nn.Linear's."""
        return linear(input, self.weight, self.bias, onednn=self.onednn)

    def without_result(self, input: torch.Tensor) -> torch.Tensor:
        """For an output that nobody reads: zeros without room; its gradients are right."""
        return _Linear.apply(input, self.weight, self.bias, self.onednn, False)


def use_fast_products(model: torch.nn.Module, *, onednn: bool) -> None:
    """Exchange the class of a model's linear layers, no more; names of parameters stay. One with an
    adapter or a quantised weight is none."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = FastLinear
        if isinstance(module, FastLinear):
            module.onednn = onednn


def linear(
    x: torch.Tensor, weight_FE: torch.Tensor, bias_F: torch.Tensor | None, *, onednn: bool
) -> torch.Tensor:
    """torch.nn.functional.linear: [..., E] -> [..., F], with gradient."""
    if product_of(x, weight_FE, onednn=onednn) is torch.matmul:
        return functional.linear(x, weight_FE, bias_F)
    return _Linear.apply(x, weight_FE, bias_F, onednn, True)


class _Linear(torch.autograd.Function):
    """Keeps its input as it was multiplied: in the weights' type."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_FE: torch.Tensor,
        bias_F: torch.Tensor | None,
        onednn: bool,
        has_result: bool,
    ) -> torch.Tensor:
        ctx.product = product_of(x, weight_FE, onednn=onednn)
        shape = (*x.shape[:-1], weight_FE.shape[0])
        narrow = x.to(weight_FE.dtype)
        ctx.save_for_backward(narrow, weight_FE)
        if not has_result:
            return x.new_zeros(()).expand(shape)
        out_TF = ctx.product(narrow.flatten(0, -2), weight_FE.T)
        if bias_F is not None:
            out_TF += bias_F
        return out_TF.view(shape)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The inputs' in the outputs' type, the others' in the weights'."""
        x, weight_FE = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        dtype = weight_FE.dtype
        grad_TF = grads[0].flatten(0, -2)
        grad_bias = grad_TF.sum(dim=0).to(dtype) if wants_bias else None
        grad_TF = grad_TF.to(dtype)
        grad_x = ctx.product(grad_TF, weight_FE).view(x.shape) if wants_x else None
        grad_weight = None
        if wants_weight:
            grad_weight = weight_gradient(grad_TF, x.flatten(0, -2), ctx.product).to(dtype)
        return grad_x, grad_weight, grad_bias, None, None


def weight_gradient(grad_TF: torch.Tensor, x_TE: torch.Tensor, product: Product) -> torch.Tensor:
    """grad_TF.T @ x_TE. oneDNN first turns the matrix on the left, by one thread: let it be the
    smaller one, and the other so much larger that it pays."""
    outputs, inputs = grad_TF.shape[1], x_TE.shape[1]
    if product is onednn_matmul and max(outputs, inputs) < MIN_TURNED:
        return grad_TF.T @ x_TE
    return product(x_TE.T, grad_TF).T if outputs > inputs else product(grad_TF.T, x_TE)
