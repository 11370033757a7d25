"""Products of matrices on this processor: MKL, torch's choice, beside oneDNN (lean/products.py).

python scripts/bench_products.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from vlrl.lean.products import has_avx512_without_mkl, onednn_matmul, weight_gradient

SHAPES = (
    (16, 128, 384),
    (64, 128, 384),
    (816, 128, 128),
    (816, 128, 384),
    (816, 384, 128),
    (3000, 512, 2048),
)
"""Rows, inputs and outputs of linear layers: few rows, the learner bench's, larger ones."""


Call = Callable[[], object]


def seconds(call: Call, times: int = 40) -> float:
    """Median of some calls after the first ones."""
    for _ in range(3):
        call()
    found: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def making_a_kernel() -> float:
    """What oneDNN's first call of a shape takes longer than its second."""
    weight, more = torch.randn(128, 384), []
    for rows in range(500, 700):
        x = torch.randn(rows, 128)
        begun = time.perf_counter()
        onednn_matmul(x, weight)
        first = time.perf_counter()
        onednn_matmul(x, weight)
        more.append(2 * first - begun - time.perf_counter())
    return statistics.median(more)


def pairs(rows: int, inputs: int, outputs: int) -> dict[str, tuple[Call, Call]]:
    """A linear layer's three products, by MKL and as lean/products.py has oneDNN do them."""
    x, weight, grad = (
        torch.randn(rows, inputs),
        torch.randn(outputs, inputs),
        torch.randn(rows, outputs),
    )
    return {
        "forward": (lambda: x @ weight.T, lambda: onednn_matmul(x, weight.T)),
        "inputs' gradient": (lambda: grad @ weight, lambda: onednn_matmul(grad, weight)),
        "weights' gradient": (
            lambda: grad.T @ x,
            lambda: weight_gradient(grad, x, onednn_matmul),
        ),
    }


def main() -> None:
    table = Table("rows", "inputs", "outputs", "", "MKL, us", "oneDNN, us", "ratio")
    for shape in SHAPES:
        for name, (mkl, onednn) in pairs(*shape).items():
            slow, fast = seconds(mkl), seconds(onednn)
            times = f"{slow * 1e6:.0f}", f"{fast * 1e6:.0f}", f"{slow / fast:.2f}"
            table.add_row(*map(str, shape), name, *times)
    console = Console()
    console.print(table)
    console.print(f"oneDNN makes the kernel of a shape in {making_a_kernel() * 1e6:.0f} us")
    console.print(
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; "
        f"learner.products: onednn takes {'oneDNN' if has_avx512_without_mkl() else 'MKL'} here"
    )


if __name__ == "__main__":
    main()
