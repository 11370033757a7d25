"""The least that an update can cost: its operations and its bytes, at rates measured here.

Operations: every token of every packed group once through the text model, every patch once through
the vision tower, every response token once through the LM head; forward and backward are three
times the forward. Bytes: the weights are read in forward and backward and their gradients written,
once a micro-batch; what the backward pass needs is written and read once.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from learner_job import Job
from learner_meter import sync

from vlrl.lean.products import onednn_matmul
from vlrl.plan.activations import text_layer_bytes, vision_block_bytes
from vlrl.plan.sizes import sizes_of


def floors(job: Job, model: Any) -> dict[str, Any]:
    """TFLOP and GB of the whole update, the rates, and the seconds that either floor takes."""
    operations = needed_operations(job, model)
    moved = needed_bytes(job, model)
    flops, bandwidth = matmul_rate(job), copy_rate(job)
    return {
        "tflop": operations / 1e12,
        "gb": moved / 1e9,
        "matmul_tflops": flops / 1e12,
        "copy_gb_per_s": bandwidth / 1e9,
        "operations_s": operations / flops,
        "bytes_s": moved / bandwidth,
    }


def needed_operations(job: Job, model: Any) -> float:
    """Floating-point operations of forward and backward, a multiply and an add being two."""
    sizes = sizes_of(model.config)
    text_weights = _matrix_elements(model.model.language_model.layers)
    vision_weights = _matrix_elements(model.model.visual.blocks)
    patches, prompt, response = job.patches, job.prompt_tokens, job.response_tokens
    # Pairs of query and key: causal in the prompt, then prompt and own past for each response.
    pairs = prompt**2 / 2 + job.responses * (prompt * response + response**2 / 2)
    text = 2 * text_weights * job.group_tokens
    text += 4 * sizes.text.num_layers * sizes.text.query_size * pairs
    vision = 2 * vision_weights * patches
    vision += 4 * sizes.vision.num_blocks * sizes.vision.hidden * patches**2
    vision += 2 * _matrix_elements(model.model.visual.merger) * patches / sizes.vision.merge**2
    head = 2 * sizes.text.vocab * sizes.text.hidden * job.responses * response
    return 3 * job.prompts * (text + vision + head)


def needed_bytes(job: Job, model: Any) -> float:
    """Bytes to and from memory."""
    item = torch.finfo(model.dtype).bits // 8
    sizes = sizes_of(model.config)
    weights = sum(parameter.numel() for parameter in model.parameters()) * item
    kept = sizes.text.num_layers * text_layer_bytes(sizes.text, item) * job.group_tokens
    kept += sizes.vision.num_blocks * vision_block_bytes(sizes.vision, item) * job.patches
    return job.prompts * (3 * weights + 2 * kept)


def matmul_rate(job: Job) -> float:
    """Operations a second of a large square product in the job's dtype, by the faster library."""
    size = 8192 if job.device == "cuda" else 1024
    a = torch.randn(size, size, device=job.device).to(getattr(torch, job.dtype))
    best = min(
        _best_seconds(lambda m=m: m(a, a), job.device) for m in (torch.matmul, onednn_matmul)
    )
    return 2 * size**3 / best


def copy_rate(job: Job) -> float:
    """Bytes a second, read and written, of a large copy."""
    num = 2**30 if job.device == "cuda" else 2**26
    source = torch.zeros(num, dtype=torch.uint8, device=job.device)
    target = torch.empty_like(source)
    return 2 * num / _best_seconds(lambda: target.copy_(source), job.device)


def _matrix_elements(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim >= 2)


def _best_seconds(call: Any, device: str, repeats: int = 10) -> float:
    """Of one call, after two to warm up."""
    seconds: list[float] = []
    for _ in range(2 + repeats):
        sync(device)
        start = time.perf_counter()
        call()
        sync(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])
