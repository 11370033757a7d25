"""A short run in each of the processes that a launcher starts; one that is there goes on.

torchrun --nproc-per-node 2 -m tests.distributed.launched OUT [KEY=VALUE]...
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.distributed.runs import go_on, run

if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    (go_on if (out / "config.yaml").exists() else run)(out, *sys.argv[2:])
