"""How vLLM is started, in this process or as a server: the same arguments, so the same numbers."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from transformers import AutoConfig

from vlrl.config import RunConfig, SamplerConfig
from vlrl.images import ImageStore
from vlrl.suites import load_suites

CPU_KV_BLOCK = 32
"""Tokens per KV block on the CPU: the granularity at which responses share their prompt."""
CPU_BATCHED_TOKENS = 8192
"""Prompt tokens that vLLM takes in one step on the CPU."""
MAX_IMAGES = 64
"""Images in one prompt."""


def engine_arguments(
    model: str,
    config: SamplerConfig,
    images: ImageStore,
    *,
    max_model_len: int,
    dtype: str,
    on_cpu: bool,
    eager: bool,
) -> dict[str, Any]:
    """vLLM's own names and values. `images` has the bounds that pictures are made to keep."""
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "enforce_eager": eager,
        "logprobs_mode": "processed_logprobs",
        "limit_mm_per_prompt": {"image": MAX_IMAGES, "video": 0},
        # Pictures come at their final size; these bounds make the processor leave it alone.
        "mm_processor_kwargs": {
            "size": {"shortest_edge": images.min_pixels, "longest_edge": images.max_pixels}
        },
        "generation_config": "vllm",  # no sampling defaults from the checkpoint
        "use_tqdm_on_load": False,
    }
    if torch.distributed.is_initialized():
        # One engine in each learner process, on that process's GPU and in its process group.
        arguments["distributed_executor_backend"] = "external_launcher"
    if not on_cpu:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        arguments["enable_sleep_mode"] = config.sleep
        if config.experts:
            arguments["enable_return_routed_experts"] = True
        return arguments
    # Whole blocks for each sequence, and one more: vLLM keeps a block for itself.
    num_tokens = config.max_num_seqs * (-(-max_model_len // CPU_KV_BLOCK) + 1) * CPU_KV_BLOCK
    # A prompt cut in two fails for seeded requests: vLLM 0.32 then asks torch's CPU generator for
    # an offset, which it doesn't have.
    arguments["enable_chunked_prefill"] = False
    arguments["max_num_batched_tokens"] = max(max_model_len, CPU_BATCHED_TOKENS)
    memory = kv_cache_bytes(model, num_tokens, config.max_num_seqs, dtype)
    arguments["kv_cache_memory_bytes"] = memory
    if _is_recurrent(model):
        # vLLM chooses the block by the state's size, and caches prefixes of such models only with
        # prompts cut in two.
        arguments["enable_prefix_caching"] = False
    else:
        arguments["block_size"] = CPU_KV_BLOCK
    return arguments


def most_tokens(cfg: RunConfig) -> int:
    """vLLM's limit on a prompt (images expanded) and its response together."""
    suites = load_suites(cfg.eval.suites, cfg.data.root)
    longest = max([cfg.sampler.max_tokens, *(suite.file.max_tokens for suite in suites)])
    return cfg.sampler.max_model_len or cfg.data.max_prompt_tokens + longest


def kv_cache_bytes(model: str, num_tokens: int, num_seqs: int, dtype: str) -> int:
    """Bytes of the cache for so many tokens, at most a quarter of the memory that is free.

    Source: two tensors (keys, values) of [tokens, kv heads, head size] in every layer; with
    recurrent layers a state of [value heads, key size, value size] in float32 and the
    convolution's last inputs, for which vLLM makes room in every layer's blocks.
    """
    config: Any = AutoConfig.from_pretrained(model).get_text_config()
    num_heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    num_kv_heads = getattr(config, "num_key_value_heads", None) or num_heads
    itemsize = getattr(torch, dtype).itemsize
    wanted = 2 * config.num_hidden_layers * num_kv_heads * head_size * itemsize * num_tokens
    if _is_recurrent(model):
        keys = config.linear_num_key_heads * config.linear_key_head_dim
        values = config.linear_num_value_heads * config.linear_value_head_dim
        state = values * config.linear_key_head_dim
        state += (2 * keys + values) * (config.linear_conv_kernel_dim - 1)
        wanted += config.num_hidden_layers * state * 4 * num_seqs
    return min(wanted, psutil.virtual_memory().available // 4)


def _is_recurrent(model: str) -> bool:
    config: Any = AutoConfig.from_pretrained(model).get_text_config()
    return "linear_attention" in (getattr(config, "layer_types", None) or ())
