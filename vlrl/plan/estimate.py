"""What a run takes of a GPU's memory, and the largest micro-batch that fits: from shapes alone.

Learner and sampler share each GPU: vLLM holds its share of the memory all the time, or with
`sampler.sleep` while it samples, the learner has the rest. Two layouts: `whole`, where one GPU
holds the whole model (`vlrl train`), and `sharded`, where weights, gradients and optimiser are cut
over all GPUs and put together layer by layer (FSDP2's full shard: `torchrun -m vlrl train`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vlrl.config import RunConfig
from vlrl.plan.activations import FLOAT32, backward_bytes, head_bytes
from vlrl.plan.sizes import ModelSizes, sizes_of

GIB = 2**30
CONTEXT_BYTES = GIB
"""CUDA's context, its libraries' workspaces and what the allocator can't use. A guess."""
ENGINE_BYTES = GIB
"""vLLM's own activations and CUDA graphs, inside its share. A guess; vLLM measures its own. The
graphs stay while it sleeps."""

Layout = Literal["whole", "sharded"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`num_gpus` GPUs of `memory_bytes` each."""

    num_gpus: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many there are, how many are trained, and the most that one layer holds."""

    total: int
    trained: int
    largest_layer: int
    trains_vision: bool


@dataclass(frozen=True, kw_only=True)
class LearnerMemory:
    """Bytes on one GPU at the learner's two peaks: the backward pass, and the optimiser's step.

    masters: fp32 copies of bf16 weights. optimizer: AdamW's two moments. gathered: layers that a
    sharded model has put together. activations: with the LM head's logits. step: fp32 gradients and
    what AdamW needs for its arithmetic.
    """

    weights: int
    masters: int
    optimizer: int
    gradients: int
    gathered: int
    activations: int
    step: int

    @property
    def resting(self) -> int:
        """What stays while the sampler works."""
        return self.weights + self.masters + self.optimizer

    @property
    def fixed(self) -> int:
        """The peak of the optimiser's step, which no micro-batch changes."""
        return self.resting + self.step

    @property
    def peak(self) -> int:
        """The larger of the two peaks."""
        backward = self.gradients + self.gathered + self.activations
        return self.resting + max(backward, self.step)


@dataclass(frozen=True, kw_only=True)
class SamplerMemory:
    """vLLM on one GPU. sequences: of the longest prompt and response, at once."""

    share: int
    weights: int
    kv_cache: int
    kv_bytes_per_token: int
    tokens: int
    sequences: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One layout of a run on a machine, with gradient checkpointing or without.

    sleeps: vLLM gives its memory up while the learner works.
    longest: tokens of the longest prompt with one response, which can't be cut.
    largest_microbatch: tokens for which all fits; 0: not even one.
    smallest_peak: bytes of the learner with a micro-batch of `longest` tokens.
    """

    layout: Layout
    checkpointed: bool
    machine: Machine
    parameters: Parameters
    learner: LearnerMemory
    sampler: SamplerMemory
    sleeps: bool
    budget_tokens: int
    budget_patches: int
    longest: int
    largest_microbatch: int
    smallest_peak: int

    @property
    def room(self) -> int:
        """Bytes of one GPU that vLLM leaves to the learner at work."""
        return self.machine.memory_bytes - CONTEXT_BYTES - _held(self.sampler, self.sleeps)

    @property
    def fits(self) -> bool:
        """Whether some micro-batch does, with a sequence in the sampler."""
        alone = self.machine.memory_bytes - CONTEXT_BYTES - self.sampler.share
        is_there_room = self.learner.resting <= alone and self.smallest_peak <= self.room
        return is_there_room and self.learner.fixed <= self.room and self.sampler.sequences > 0

    @property
    def problems(self) -> list[str]:
        """Why the run can't fit, each with what to change; empty if it fits."""
        found: list[str] = []
        nap = "" if self.sleeps else "sampler.sleep=true, "
        if self.sampler.sequences < 1:
            found.append(
                f"vLLM has {_gib(self.sampler.share)} (sampler.gpu_memory_utilization) for weights "
                f"of {_gib(self.sampler.weights)}: no sequence of {self.longest:,} tokens fits "
                "beside them"
            )
        fixed, resting = self.learner.fixed, self.learner.resting
        beside = self.machine.memory_bytes - CONTEXT_BYTES - self.sampler.share
        if resting > beside:
            found.append(
                f"the learner's weights and optimiser take {_gib(resting)} while vLLM samples, "
                f"which leaves {_gib(beside)}: a smaller model, more GPUs (torchrun), more frozen "
                "(model.freeze), adapters (model.lora), or less for vLLM "
                "(sampler.gpu_memory_utilization)"
            )
        elif fixed > self.room:
            found.append(
                f"the learner's weights, optimiser and its step alone take {_gib(fixed)}, and vLLM "
                f"leaves {_gib(self.room)}: a smaller model, more frozen (model.freeze), adapters "
                f"(model.lora), {nap}or less for vLLM (sampler.gpu_memory_utilization)"
            )
        elif self.smallest_peak > self.room:
            less = "" if self.checkpointed else "learner.gradient_checkpointing=true, "
            found.append(
                f"the learner takes {_gib(self.smallest_peak)} for a single response of "
                f"{self.longest:,} tokens with its prompt, and vLLM leaves {_gib(self.room)}: "
                f"{less}{nap}shorter prompts and responses (data.max_prompt_tokens, "
                "sampler.max_tokens) or less for vLLM (sampler.gpu_memory_utilization)"
            )
        elif self.largest_microbatch < self.budget_tokens:
            found.append(
                f"learner.tokens_per_microbatch={self.budget_tokens} takes up to "
                f"{_gib(self.learner.peak)}, and vLLM leaves {_gib(self.room)}: "
                f"{self.largest_microbatch} fits, if it were all images"
            )
        return found


def make_plans(cfg: RunConfig, model: Any, machine: Machine, *, dtype: str) -> list[Plan]:
    """Both layouts (one on one GPU), each without gradient checkpointing and with it.

    model: the policy on the meta device, frozen as the config says. dtype: of the weights.

    Raises:
        PlanError: a family that isn't known.
    """
    layouts: tuple[Layout, ...] = ("whole", "sharded") if machine.num_gpus > 1 else ("whole",)
    planner = _Planner(
        cfg=cfg,
        sizes=sizes_of(model.config),
        parameters=count_parameters(model),
        machine=machine,
        item=FLOAT32 if dtype == "float32" else 2,
    )
    return [planner.plan(layout, c) for layout in layouts for c in (False, True)]


def unfit(cfg: RunConfig, model: Any, memory_bytes: int, *, dtype: str) -> list[str]:
    """Why `vlrl train` can't fit on one GPU of so many bytes; empty if it can.

    Raises:
        PlanError: a family that isn't known.
    """
    plans = make_plans(cfg, model, Machine(num_gpus=1, memory_bytes=memory_bytes), dtype=dtype)
    (own,) = [p for p in plans if p.checkpointed == cfg.learner.gradient_checkpointing]
    return own.problems


def count_parameters(model: Any) -> Parameters:
    """Of a model on any device; tied weights count once."""
    trained = [p for p in model.parameters() if p.requires_grad]
    layers = [*model.model.language_model.layers, *model.model.visual.blocks]
    tables = [p.numel() for p in model.parameters() if p.ndim == 2]
    return Parameters(
        total=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in trained),
        largest_layer=max(max(tables), *(sum(p.numel() for p in x.parameters()) for x in layers)),
        trains_vision=any(p.requires_grad for p in model.model.visual.parameters()),
    )


@dataclass(frozen=True, kw_only=True)
class _Planner:
    cfg: RunConfig
    sizes: ModelSizes
    parameters: Parameters
    machine: Machine
    item: int

    def plan(self, layout: Layout, checkpointed: bool) -> Plan:
        learner, sampler = self.cfg.learner, self._sampler()
        sleeps = self.cfg.sampler.sleep
        room = self.machine.memory_bytes - CONTEXT_BYTES - _held(sampler, sleeps)
        longest = self.cfg.data.max_prompt_tokens + self.cfg.sampler.max_tokens

        merged = self.sizes.vision.merge**2

        def peak(tokens: int) -> int:
            return self._learner(layout, checkpointed, tokens, self._patches(tokens)).peak

        def peak_of_one() -> int:  # neither budget cuts a prompt with one response
            patches = self.cfg.data.max_prompt_tokens * merged
            return self._learner(layout, checkpointed, longest, patches).peak

        tokens = learner.tokens_per_microbatch
        return Plan(
            layout=layout,
            checkpointed=checkpointed,
            machine=self.machine,
            parameters=self.parameters,
            learner=self._learner(layout, checkpointed, tokens, self._patches(tokens)),
            sampler=sampler,
            sleeps=sleeps,
            budget_tokens=tokens,
            budget_patches=self._patches(tokens),
            longest=longest,
            largest_microbatch=_largest(lambda tokens: peak(tokens) <= room),
            smallest_peak=peak_of_one(),
        )

    def _learner(
        self, layout: Layout, checkpointed: bool, tokens: int, patches: int
    ) -> LearnerMemory:
        parts = self.machine.num_gpus if layout == "sharded" else 1
        total, trained = self.parameters.total // parts, self.parameters.trained // parts
        chunk = min(self.cfg.learner.logprob_chunk, tokens)
        # Too much rather than too little: what went into a product is kept as it was multiplied.
        is_wide = self.cfg.learner.activations == "float32"
        item = FLOAT32 if is_wide else self.item
        return LearnerMemory(
            weights=total * self.item,
            masters=trained * FLOAT32 if self.item < FLOAT32 else 0,
            optimizer=2 * trained * FLOAT32,
            gradients=trained * self.item,
            # The layer at work and the next one, weights and gradients.
            gathered=0 if parts == 1 else 4 * self.parameters.largest_layer * self.item,
            activations=backward_bytes(
                self.sizes,
                item,
                tokens=tokens,
                patches=patches,
                head=head_bytes(self.sizes.text, self.item, chunk),
                checkpointed=checkpointed,
                trains_vision=self.parameters.trains_vision,
            ),
            step=2 * trained * FLOAT32,
        )

    def _patches(self, tokens: int) -> int:
        """The most that a micro-batch of so many tokens can hold: it may be all images."""
        merged = self.sizes.vision.merge**2
        return min(self.cfg.learner.patches_per_microbatch, tokens * merged)

    def _sampler(self) -> SamplerMemory:
        text, sampler = self.sizes.text, self.cfg.sampler
        share = int(self.machine.memory_bytes * sampler.gpu_memory_utilization)
        weights = self.parameters.total * self.item
        kv_bytes = 2 * text.num_layers * text.kv_size * self.item
        if sampler.servers:  # on GPUs of their own
            return SamplerMemory(
                share=0,
                weights=0,
                kv_cache=0,
                kv_bytes_per_token=kv_bytes,
                tokens=0,
                sequences=sampler.max_num_seqs,
            )
        cache = max(0, share - weights - ENGINE_BYTES)
        tokens = cache // kv_bytes
        longest = self.cfg.data.max_prompt_tokens + sampler.max_tokens
        return SamplerMemory(
            share=share,
            weights=weights,
            kv_cache=cache,
            kv_bytes_per_token=kv_bytes,
            tokens=tokens,
            sequences=min(sampler.max_num_seqs, tokens // longest),
        )


def _held(sampler: SamplerMemory, sleeps: bool) -> int:
    """Bytes that vLLM holds while the learner works."""
    return min(ENGINE_BYTES, sampler.share) if sleeps else sampler.share


def _largest(fits: Any, limit: int = 2**22) -> int:
    """The largest number, up to `limit`, that fits; 0: none does. What fits is an interval."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _gib(num: int) -> str:
    return f"{num / GIB:.1f} GiB"
