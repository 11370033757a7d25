"""Which experts vLLM's routers chose for the tokens of a response.

On a GPU vLLM returns them itself (`enable_return_routed_experts`). That needs its second model
runner and Triton, which a CPU has not: with the first one, the same routers are listened to here,
and the rows of each step are given to the requests that they belong to.

Shapes: S tokens of a step, T tokens of a response, L decoder layers, K experts of a token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from vlrl.routing import UNKNOWN
from vlrl.samplers.base import SamplerError


def returned_experts(output: Any) -> torch.Tensor:
    """The experts in one of vLLM's outputs, of all tokens but the last: int16 [T - 1, L, K].

    Raises:
        SamplerError: vLLM returned none, or of another number of tokens.
    """
    num_tokens, found = len(output.token_ids) - 1, output.routed_experts
    if found is None or len(found) < num_tokens:
        raise SamplerError(
            f"vLLM returned the experts of {0 if found is None else len(found)} tokens for a "
            f"response of {num_tokens + 1}: set sampler.experts=false"
        )
    rows = torch.as_tensor(found.astype("int16"))
    return rows[len(rows) - num_tokens :].clone()


class ExpertListener:
    """Keeps what the routers of an engine in this process choose for responses.

    Raises:
        SamplerError: the model has no routers that can be listened to.
    """

    def __init__(self, llm: Any) -> None:
        self._tokens: dict[str, list[torch.Tensor]] = {}
        self._step: dict[int, torch.Tensor] = {}
        self._layers: list[int] = []
        self._shape = (0, 0)
        self._runner: Any = None
        llm.collective_rpc(self._attach)
        if not self._layers:
            raise SamplerError("sampler.experts: the model has no routers that can be listened to")

    def forget(self) -> None:
        """Drop what was kept."""
        self._tokens.clear()

    def take(self, request_id: str, num_tokens: int) -> torch.Tensor:
        """The experts of a finished response's tokens but the last: int16 [T - 1, L, K].

        Raises:
            SamplerError: not every token went through the routers once.
        """
        tokens = self._tokens.pop(request_id, [])
        if len(tokens) != num_tokens - 1:
            raise SamplerError(
                f"request {request_id}: the experts of {len(tokens)} tokens were seen, not of "
                f"{num_tokens - 1}"
            )
        return torch.stack(tokens) if tokens else torch.empty(0, *self._shape, dtype=torch.int16)

    def _attach(self, worker: Any) -> None:
        from vllm.model_executor.layers.fused_moe.layer import MoERunner

        self._runner = getattr(worker, "worker", worker).model_runner
        config = self._runner.model_config
        self._shape = (config.get_total_num_hidden_layers(), config.get_num_experts_per_tok())
        for module in self._runner.get_model().modules():
            if isinstance(module, MoERunner):
                self._layers.append(module.layer_id)
                module.router.set_capture_fn(partial(self._listen, module.layer_id))

    def _listen(self, layer: int, experts_SK: torch.Tensor) -> None:
        self._step[layer] = experts_SK.to("cpu", torch.int16)
        if layer == self._layers[-1]:
            self._share_out()

    def _share_out(self) -> None:
        """The layers of a step are complete: give each request the rows of its response."""
        num_tokens = len(self._step[self._layers[-1]])
        step = torch.full((num_tokens, *self._shape), UNKNOWN, dtype=torch.int16)
        for layer, experts_SK in self._step.items():
            step[:, layer] = experts_SK
        self._step.clear()
        batch = self._runner.input_batch
        starts = self._runner.query_start_loc.np
        for row, request_id in enumerate(batch.req_ids):
            place = int(batch.num_computed_tokens_cpu[row])
            prompt = int(batch.num_prompt_tokens[row])
            rows = step[int(starts[row]) + max(0, prompt - place) : int(starts[row + 1])]
            kept = self._tokens.setdefault(request_id, [])
            del kept[max(0, place - prompt) :]  # computed again after a preemption
            kept.extend(rows)
