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
from torch.nn import functional

from vlrl.lean.products import _has_avx512_without_mkl, _onednn

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
    weight, more = torch.randn(384, 128), []
    for rows in range(500, 700):
        x = torch.randn(rows, 128)
        begun = time.perf_counter()
        _onednn(x, weight)
        first = time.perf_counter()
        _onednn(x, weight)
        more.append(2 * first - begun - time.perf_counter())
    return statistics.median(more)


def pairs(rows: int, inputs: int, outputs: int) -> dict[str, tuple[Call, Call]]:
    """A linear layer's three products, by MKL and as lean/products.py has oneDNN do them."""
    x, weight, grad = (
        torch.randn(rows, inputs),
        torch.randn(outputs, inputs),
        torch.randn(rows, outputs),
    )

    def weights_gradient() -> torch.Tensor:
        return _onednn(x.T, grad.T).T if outputs > inputs else _onednn(grad.T, x.T)

    return {
        "forward": (lambda: functional.linear(x, weight), lambda: _onednn(x, weight)),
        "inputs' gradient": (lambda: grad @ weight, lambda: _onednn(grad, weight.T)),
        "weights' gradient": (lambda: grad.T @ x, weights_gradient),
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
        f"learner.products: onednn takes {'oneDNN' if _has_avx512_without_mkl() else 'MKL'} here"
    )


if __name__ == "__main__":
    main()
