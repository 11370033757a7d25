"""The learner: a model, its optimiser, and one exact update from a mini-batch of groups.

Each group's prompt and images go through the model once; the loss is summed over micro-batches
with the whole update's denominators.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch

from vlrl.batch import (
    LearnerGroup,
    Microbatch,
    denominators,
    microbatches,
    with_experts,
    with_old_logprobs,
)
from vlrl.config import LearnerConfig, LossConfig
from vlrl.distributed.sharding import Shards, idle_group
from vlrl.distributed.tensors import like, local, optimizer_shards, whole
from vlrl.distributed.totals import total
from vlrl.distributed.world import ALONE, World
from vlrl.forward import TokenPredictions, predict, prompt_positions
from vlrl.lean.products import use_fast_products
from vlrl.logprobs import PolicyHead
from vlrl.losses import LOSSES, Denominators, LossInputs
from vlrl.models.errors import ModelError
from vlrl.models.load import check_family, freeze
from vlrl.models.lora import adapter_weights, has_lora, merged_weights
from vlrl.models.patch_embed import use_patch_projection
from vlrl.models.recompute import use_cheap_recompute, use_recompute
from vlrl.models.wide import use_wide_activations
from vlrl.remedies import remedied, with_kl
from vlrl.routing import Routers
from vlrl.shared_prefix import use_shared_prefix
from vlrl.update_stats import StatsCollector, UpdateStats, UpdateWork
from vlrl.vision import ImageEmbeddings, VisionCounts, VisionPasses, VisionTower

logger = logging.getLogger(__name__)


class Learner:
    """A policy in training.

    `model` is a Qwen-VL model of transformers; its text part is given the shared-prefix attention,
    its vision tower a matrix product in place of a convolution, and it stays in eval mode, because
    dropout would make it another policy than the sampler's. If it has adapters (models/lora.py),
    these alone are trained, and `freeze_patterns` are not read.
    `temperature` and `banned_token_ids` are the sampler's; `max_response_tokens` its limit, which
    Dr. GRPO divides by.
    In a `world` of several processes each holds a shard of the policy (see distributed/sharding.py)
    and is given its own groups of a mini-batch, none perhaps. All of them make the same calls; what
    a call computes and reports is that of all the groups in one process.

    Attributes:
        num_updates: optimiser updates done. num_skipped: those left out for a gradient that was
            not finite.

    Raises:
        ModelError: a family that isn't supported, or a freeze pattern that matches nothing.
    """

    def __init__(
        self,
        model: Any,
        *,
        config: LearnerConfig,
        loss: LossConfig,
        temperature: float,
        banned_token_ids: Sequence[int],
        max_response_tokens: int,
        freeze_patterns: Sequence[str] = (),
        world: World = ALONE,
    ) -> None:
        check_family(model.config, "the model")
        use_shared_prefix(model)
        use_patch_projection(model, onednn=config.products == "onednn")
        use_fast_products(model, onednn=config.products == "onednn")
        if not has_lora(model):
            freeze(model, freeze_patterns)
        if config.activations == "float32":
            use_wide_activations(model)
        use_cheap_recompute(model)
        if config.gradient_checkpointing:
            use_recompute(model)
        self.model = model.eval()
        self.world = world
        self._shards = Shards(model, world)
        self.config = config
        self.loss = loss
        self.num_updates = 0
        self.num_skipped = 0
        self._max_response_tokens = max_response_tokens
        self._head = PolicyHead(
            temperature=temperature,
            banned_token_ids=tuple(banned_token_ids),
            chunk=config.logprob_chunk,
            onednn=config.products == "onednn",
        )
        self.routers = Routers(model)
        if config.routing_replay != "off" and not self.routers:
            raise ModelError("learner.routing_replay: the model has no routers of experts")
        self.vision = VisionTower(model, int(config.vision_cache_gib * 2**30))
        self._trained = [p for p in model.parameters() if p.requires_grad]
        # A step of 1e-6 is lost in bfloat16's 8 bits: what is stepped there are fp32 copies.
        self._masters = [p if p.dtype == torch.float32 else _master(p) for p in self._trained]
        self._optimizer = torch.optim.AdamW(
            self._masters,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True if self._trained[0].is_cuda else None,  # None: torch's choice
        )

    @property
    def lr(self) -> float:
        """The next update's learning rate: a linear warm-up, then constant or a linear decay."""
        config, done = self.config, self.num_updates
        left = 1.0 if config.decay_updates is None else max(0.0, 1 - done / config.decay_updates)
        return config.lr * min(1.0, (done + 1) / (config.warmup_updates + 1)) * left

    def updates(self, parts: Sequence[Sequence[LearnerGroup]]) -> list[UpdateStats]:
        """The optimiser updates from a rollout batch's mini-batches, in turn.

        With `loss.old_logprobs` learner, pi_old is this moment's policy: for the first mini-batch
        its update's own forward (the ratio is 1), for the others one forward without gradient now.
        `learner.routing_replay` learner keeps the experts that the same forward chooses.
        """
        is_old = self.loss.old_logprobs == "learner"
        if not parts or not (is_old or self.config.routing_replay == "learner"):
            return [self.update(part) for part in parts]
        later = [self._as_of_now(part) for part in parts[1:]]
        first = self.update(parts[0], is_old=is_old)
        return [first, *(self.update(part) for part in later)]

    def update(self, groups: Sequence[LearnerGroup], *, is_old: bool = False) -> UpdateStats:
        """One optimiser update from one mini-batch of groups (see batch.minibatches).

        is_old: the policy as it is now is pi_old; else the groups' `old_logprobs` are pi_old's, and
        the sampler's where there are none.

        A gradient that isn't finite changes nothing: it is logged and counted.

        Raises:
            ValueError: the groups hold no response token at all, or a banned one.
        """
        collector, work = self._backward(groups, is_old=is_old)
        self._move_gradients()
        clip = torch.nn.utils.clip_grad_norm_
        grad_norm = float(whole(clip(self._masters, self.config.max_grad_norm)))
        lr, skipped = self.lr, not torch.isfinite(torch.tensor(grad_norm)).item()
        if skipped:
            self.num_skipped += 1
            logger.warning("update skipped: the gradient's norm is %s", grad_norm)
        else:
            for parameters in self._optimizer.param_groups:
                parameters["lr"] = lr
            self._optimizer.step()
            self._copy_masters()
            self.num_updates += 1
        self._optimizer.zero_grad(set_to_none=True)
        return UpdateStats(
            loss=collector.loss,
            grad_norm=grad_norm,
            lr=lr,
            skipped=bool(skipped),
            kl=collector.kl / collector.num_tokens,
            kl_k3=collector.kl_k3 / collector.num_tokens,
            tis_weight=collector.tis_weight,
            num_masked=collector.num_masked,
            entropy=collector.entropy / collector.num_tokens,
            response_length=collector.num_tokens / work.num_responses,
            positive=collector.positive.stats(),
            negative=collector.negative.stats(),
            num_groups=work.num_groups,
            num_responses=work.num_responses,
            num_microbatches=work.num_microbatches,
            num_images=work.images.num_images,
            num_unique_images=work.images.num_unique,
            num_tower_forwards=work.images.num_forwards,
            num_cached_images=work.images.num_cached,
            num_patches=work.images.num_patches,
            num_prompt_tokens=work.num_prompt_tokens,
            num_response_tokens=work.num_response_tokens,
            padding_share=work.padding_share,
            routers=self.routers.take_stats(self.world),
        )

    def logprobs(self, groups: Sequence[LearnerGroup]) -> list[list[torch.Tensor]]:
        """The policy's log-probs of every response: [groups][responses], each fp32 [tokens]."""
        return self._probe(groups)[0]

    def _as_of_now(self, groups: Sequence[LearnerGroup]) -> list[LearnerGroup]:
        """The groups with what the policy, as it is, says and chooses."""
        logprobs, rows = self._probe(groups)
        if self.loss.old_logprobs == "learner":
            groups = with_old_logprobs(groups, logprobs)
        return with_experts(groups, rows) if rows else list(groups)

    @torch.no_grad()
    def _probe(
        self, groups: Sequence[LearnerGroup]
    ) -> tuple[list[list[torch.Tensor]], list[tuple[Microbatch, torch.Tensor]]]:
        """Log-probs, and the experts of each row if they are to be kept."""
        rows: list[tuple[Microbatch, torch.Tensor]] = []
        found = [[torch.empty(0) for _ in group.responses] for group in groups]
        places = [{r.index: row for row, r in enumerate(group.responses)} for group in groups]
        batches, vision = self._open(groups)
        for batch, predictions in self._predictions(batches, vision):
            lengths = [n for span in batch.spans for n in span.response_lengths]
            parts = predictions.logprobs_R.cpu().split(lengths)
            for (place, index), logprobs_T in zip(batch.places_N, parts, strict=True):
                found[place][places[place][index]] = logprobs_T
            if self.config.routing_replay == "learner":
                rows.append((batch, self.routers.choices()))
        return found, rows

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every parameter by its Hugging Face name, for the sampler; a tied head comes once.

        Adapters are merged on the way (see models/lora.py), one layer at a time.
        """
        yield from merged_weights(self.model)

    def adapter(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The adapters' tensors by peft's names, for a sampler that holds the base weights."""
        yield from adapter_weights(self.model)

    def snapshot(self) -> list[torch.Tensor]:
        """The trained parameters as they are now, in the host's memory."""
        return [local(p.detach()).to("cpu", copy=True) for p in self._trained]

    @contextmanager
    def rewound(self, snapshot: Sequence[torch.Tensor]) -> Generator[None]:
        """Be the policy of an earlier `snapshot` for a while."""
        now = self.snapshot()
        self._put(snapshot)
        try:
            yield
        finally:
            self._put(now)

    @torch.no_grad()
    def _put(self, snapshot: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self._trained, snapshot, strict=True):
            local(parameter.detach()).copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the model's weights, which a checkpoint holds.

        Where these are shards the optimiser's states are with them, and only counters are here.
        """
        counters = {"num_updates": self.num_updates, "num_skipped": self.num_skipped}
        if self.world.size > 1:
            return counters
        return counters | {
            "optimizer": self._optimizer.state_dict(),
            "masters": [master.detach() for master, _ in self._pairs()],
        }

    def trained(self) -> Iterator[tuple[str, torch.nn.Parameter, torch.nn.Parameter]]:
        """(name, parameter, what the optimiser steps) of the trained parameters."""
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        return zip(names, self._trained, self._masters, strict=True)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken; the model has that moment's weights."""
        self.num_updates = state["num_updates"]
        self.num_skipped = state["num_skipped"]
        if "optimizer" not in state:
            return
        self._optimizer.load_state_dict(optimizer_shards(state["optimizer"], self._masters))
        for (master, _), saved in zip(self._pairs(), state["masters"], strict=True):
            master.data.copy_(like(saved, master))

    def _pairs(self) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
        """(fp32 copy, parameter), of the parameters that have a copy."""
        pairs = zip(self._masters, self._trained, strict=True)
        return [(master, parameter) for master, parameter in pairs if master is not parameter]

    def _move_gradients(self) -> None:
        for master, parameter in self._pairs():
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None

    @torch.no_grad()
    def _copy_masters(self) -> None:
        for master, parameter in self._pairs():
            parameter.copy_(master)

    def _backward(
        self, groups: Sequence[LearnerGroup], *, is_old: bool = False
    ) -> tuple[StatsCollector, UpdateWork]:
        """Add up the loss's gradient over the micro-batches."""
        divisors = denominators(groups, self._max_response_tokens)
        work = UpdateWork(
            VisionCounts(), num_groups=len(groups), num_responses=divisors.num_responses
        )
        responses, tokens = self.world.sum(divisors.num_responses, divisors.num_tokens)
        divisors = replace(divisors, num_responses=responses, num_tokens=tokens)
        if not divisors.num_tokens:
            raise ValueError("there is no response token to learn from in this mini-batch")
        batches, vision = self._open(groups)
        work.images = vision.counts
        self.routers.take_stats()  # of probes
        collector = StatsCollector()
        for batch, predictions in self._predictions(batches, vision):
            inputs = self._inputs(batch, predictions.logprobs_R, divisors, is_old=is_old)
            outputs = with_kl(LOSSES[self.loss.name](inputs, self.loss), inputs, self.loss)
            outputs.loss.backward()
            collector.add(inputs, outputs, predictions.entropy_R)
            work.add(batch, predictions.padding_share)
        return total(self.world.gather(collector)), total(self.world.gather(work))

    def _inputs(
        self,
        batch: Microbatch,
        logprobs_R: torch.Tensor,
        divisors: Denominators,
        *,
        is_old: bool,
    ) -> LossInputs:
        device = logprobs_R.device
        old_R = logprobs_R.detach() if is_old else batch.old_logprobs_R.to(device)
        inputs = LossInputs(
            learner_logprobs_R=logprobs_R,
            sampler_logprobs_R=batch.sampler_logprobs_R.to(device),
            old_logprobs_R=old_R,
            advantages_R=batch.advantages_R.to(device),
            response_R=batch.response_R.to(device),
            num_responses=len(batch.places_N),
            denominators=divisors,
        )
        return remedied(inputs, self.loss)

    def _open(self, groups: Sequence[LearnerGroup]) -> tuple[list[Microbatch], VisionPasses]:
        """The micro-batches of one update or probe, and the way of their images."""
        batches = list(self._rows(groups))
        return batches, self.vision.passes([batch.images for batch in batches])

    def _rows(self, groups: Sequence[LearnerGroup]) -> Iterator[Microbatch]:
        return microbatches(
            groups,
            max_tokens=self.config.tokens_per_microbatch,
            max_patches=self.config.patches_per_microbatch,
            positions=partial(prompt_positions, self.model),
        )

    def _predictions(
        self, batches: Sequence[Microbatch], vision: VisionPasses
    ) -> Iterator[tuple[Microbatch, TokenPredictions]]:
        """Each micro-batch's forward; its images go backward when the next one is asked for."""
        replay = self.config.routing_replay
        # Every process runs as many rows, and gathers the tower if one has an image.
        num_rows, num_images = self.world.max(len(batches), vision.counts.num_images)
        self._shards.open_tower(num_images > 0)
        for index, batch in enumerate(batches):
            if replay == "sampler" and batch.experts_TLK is None:
                raise ValueError("learner.routing_replay: the sampler returned no experts")
            with self.routers.row(batch.experts_TLK, replay=replay != "off"):
                images = vision.embed(index)
                yield batch, self._predict(batch, images)
            vision.done(index)
        for _ in range(num_rows - len(batches)):
            idle = self._predict(self._idle_row, [])
            if torch.is_grad_enabled():
                (idle.logprobs_R.sum() * 0.0).backward()
        self._shards.close()

    def _predict(self, batch: Microbatch, images: Sequence[ImageEmbeddings]) -> TokenPredictions:
        kernel = self.config.attention
        return self._shards.run(
            lambda: predict(self.model, batch, self._head, images, kernel=kernel)
        )

    @cached_property
    def _idle_row(self) -> Microbatch:
        group = idle_group(self._head.banned_token_ids)
        return next(self._rows([group]))


def _master(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach().float())
