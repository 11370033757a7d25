"""Everything a run is made of, typed and strict; the one place of every default.

`load` reads a YAML file, applies `key=value` overrides and returns a frozen `RunConfig`. An unknown
key is an error that names the nearest valid one; a wrong type names the key's path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vlrl.section import ConfigError, Section, apply_overrides, dump, read_yaml, validate

# What reads a section is found here too.
__all__ = ["ConfigError", "Section", "apply_overrides", "dump", "read_yaml", "validate"]

Share = Annotated[float, Field(gt=0, le=1)]
BUILTIN_MODEL = "tiny-qwen3-vl"


class LoraConfig(Section):
    """Low-rank adapters in place of full training (needs peft)."""

    rank: int = Field(default=16, gt=0, le=512)
    alpha: float = Field(default=32.0, gt=0)
    """The adapter's product is scaled by alpha / rank."""
    target: tuple[str, ...] = Field(
        default=(
            "model.language_model.layers.*.self_attn.*_proj",
            "model.language_model.layers.*.mlp.*_proj",
        ),
        min_length=1,
    )
    """Glob patterns of linear layers that get one; one that matches nothing is an error."""
    sync: Literal["adapter", "merged"] = "adapter"
    """What the sampler is given: the adapters alone, or whole weights with the adapters merged."""


class ModelConfig(Section):
    """The policy."""

    path: str = BUILTIN_MODEL
    """A folder, a hub id, or the name of a built-in checkpoint."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU."""
    freeze: tuple[str, ...] = ()
    """Glob patterns of parameters that are not trained; one that matches nothing is an error."""
    lora: LoraConfig | None = None
    """Train adapters only; the rest is frozen."""

    @model_validator(mode="after")
    def _lora_freezes(self) -> ModelConfig:
        if self.lora and self.freeze:
            raise ValueError("lora trains nothing but its adapters: leave out freeze")
        return self


class ImageConfig(Section):
    """How images become patches."""

    min_pixels: int | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)
    """Bounds of an image's area after resizing; None: the checkpoint's own."""

    @model_validator(mode="after")
    def _ordered(self) -> ImageConfig:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels is larger than max_pixels")
        return self


class DomainConfig(Section):
    """One domain of the mixture: its share of every batch and the recipes that feed it."""

    share: Share
    recipes: tuple[str, ...] = Field(min_length=1)
    """Names of data recipes, or paths to recipe files; drawn from in turn, in equal parts."""


class DataConfig(Section):
    """What is trained on."""

    mixture: dict[str, DomainConfig] = Field(min_length=1)
    root: Path | None = None
    """A folder that stands in for the hub, laid out DOMAIN/NAME/SPLIT.jsonl."""
    prompts_per_step: int = Field(default=32, gt=0)
    max_prompt_tokens: int = Field(default=4096, gt=0)
    """Longer prompts (images expanded) are skipped and counted as broken rows."""
    max_broken: float = Field(default=0.01, ge=0, le=1)
    """A recipe with a larger share of broken rows stops the run."""

    @model_validator(mode="after")
    def _shares(self) -> DataConfig:
        total = sum(d.share for d in self.mixture.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the mixture add up to {total:g}, not 1")
        return self


class FleetConfig(Section):
    """How the servers of `sampler.servers` are driven (see docs/cluster.md)."""

    in_flight: Literal["wait", "keep"] = "wait"
    """Requests under way when new weights come. wait: they are finished first, and a response of
    two versions is refused; keep: they go on with the new weights, each token's version on record.
    """
    request_s: float = Field(default=900, gt=0)
    """A server that hasn't answered a prompt by then has failed; its prompts go elsewhere."""
    health_s: float = Field(default=10, gt=0)
    """Seconds between looks at a server's health, and until one counts as missed."""
    update_s: float = Field(default=600, gt=0)
    """A server that hasn't taken new weights by then has failed."""
    gone_s: float = Field(default=300, gt=0)
    """How long to wait for a first server, or for one to come back when all are gone."""
    nccl_host: str | None = None
    """The learner's address as servers reach it, for weights over NCCL; None: its host name's."""


class SamplerConfig(Section):
    """How responses are sampled."""

    servers: tuple[str, ...] = ()
    """Addresses of vLLM servers that sample: http://HOST:PORT; none: vLLM in this process."""
    snapshots: Path | None = None
    """A folder that learner and servers see under one path: weights go through it. It belongs to
    this run alone. None: weights go over NCCL, which wants a GPU on both sides."""
    fleet: FleetConfig = FleetConfig()

    responses_per_prompt: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0, le=2)
    max_tokens: int = Field(default=1024, gt=0)
    max_model_len: int | None = Field(default=None, gt=0)
    """vLLM's limit on prompt and response together; None: data.max_prompt_tokens and the largest
    max_tokens, the suites' among them."""
    gpu_memory_utilization: float = Field(default=0.45, gt=0, le=1)
    sleep: bool = False
    """On a GPU: while the learner works, vLLM in this process hands over its share of the memory:
    its weights wait in the host's, its KV cache is dropped. Costs two copies of the weights."""
    max_num_seqs: int = Field(default=256, gt=0)
    eager: bool | None = None
    """vLLM without compilation; None: eager on a CPU, compiled on a GPU."""
    experts: bool = False
    """Have vLLM say which experts of a mixture it chose: for the updates' statistics and for
    learner.routing_replay sampler."""
    max_probe_kl: float = Field(default=1e-2, gt=0)
    """After each weight sync: the mean KL(sampler || learner) in nats above which the run stops."""

    @model_validator(mode="after")
    def _addresses(self) -> SamplerConfig:
        for url in self.servers:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"servers: {url!r} does not start with http:// or https://")
        if len({url.rstrip("/") for url in self.servers}) < len(self.servers):
            raise ValueError("servers: an address stands twice")
        return self


CLIP_RANGES = {"gspo": (3e-4, 4e-4), "cispo": (1.0, 5.0)}
"""Of losses that differ from 0.2 and 0.28 (DAPO's): GSPO's paper; ScaleRL's cap for CISPO."""


class LossConfig(Section):
    """The policy loss (see losses.py)."""

    name: Literal["sapo", "grpo", "gspo", "cispo", "dr_grpo", "policy_gradient"] = "sapo"
    average: Literal["sequence", "token"] = "sequence"
    tau_pos: float = Field(default=1.0, gt=0)
    tau_neg: float = Field(default=1.05, gt=0)
    clip_low: float | None = Field(default=None, gt=0)
    clip_high: float | None = Field(default=None, gt=0)
    """Clip range of the ratio, 1 - low to 1 + high (for cispo high is the cap itself); None: the
    loss's own."""
    old_logprobs: Literal["sampler", "learner"] = "sampler"
    """pi_old: the sampler's log-probs, or the learner's own before a rollout batch's first update.
    The latter costs a forward of all mini-batches but the first."""
    tis_cap: float | None = Field(default=None, ge=1)
    """With old_logprobs learner: each token's loss is weighted by min(pi_old / sampler, cap), which
    makes up for what the two engines compute differently; None: not weighted. 2 to 5 is usual."""

    mask_negative: float | None = Field(default=None, gt=0)
    """Leave out a response with A < 0 whose mean log(sampler / policy) is above this, in nats a
    token: the policy has left it already. None: none is left out. For stale data."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of KL(pi_old || policy) in the loss; 0: no such term."""

    @model_validator(mode="after")
    def _tis_has_a_mismatch(self) -> LossConfig:
        if self.tis_cap is not None and self.old_logprobs == "sampler":
            raise ValueError("tis_cap weighs pi_old against the sampler: set old_logprobs=learner")
        return self

    @property
    def clip_range(self) -> tuple[float, float]:
        """(low, high) as the loss reads them."""
        low, high = CLIP_RANGES.get(self.name, (0.2, 0.28))
        return self.clip_low or low, self.clip_high or high


class LearnerConfig(Section):
    """The optimiser and how an update is cut up."""

    lr: float = Field(default=1e-6, gt=0)
    warmup_updates: int = Field(default=10, ge=0)
    decay_updates: int | None = Field(default=None, gt=0)
    """The rate falls linearly to nothing over so many updates; None: it stays."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_skipped: int = Field(default=5, gt=0)
    """The run stops when so many updates in a row had a gradient that is not finite."""
    minibatches: int = Field(default=2, ge=1)
    """Optimiser updates per rollout batch. With 1 every ratio is 1: the gate does nothing."""
    tokens_per_microbatch: int = Field(default=16384, gt=0)
    patches_per_microbatch: int = Field(default=65536, gt=0)
    logprob_chunk: int = Field(default=4096, gt=0)
    """Response tokens that go through the LM head at once."""
    gradient_checkpointing: bool = False
    """Keep only each layer's inputs and compute the rest again in the backward pass: less memory
    for one more forward of the layers."""
    products: Literal["torch", "onednn"] = "torch"
    """Of fp32 matrices on a CPU. onednn: faster where the processor has AVX-512 and isn't Intel's,
    and rows are of few lengths; with ever other ones memory grows."""
    activations: Literal["model", "float32"] = "model"
    """float32: what lies between products of matrices is float32 although the weights are bfloat16:
    about half the error of a gradient for up to twice the memory. model: as model.dtype."""
    vision_cache_gib: float = Field(default=1.0, ge=0)
    """Memory of the host for a frozen vision tower's outputs, by image; 0 keeps none."""
    attention: Literal["auto", "buckets", "flex"] = "auto"
    """flex: one compiled kernel; buckets: gathered and padded; auto: flex on a GPU."""
    routing_replay: Literal["off", "learner", "sampler"] = "off"
    """Experts of a mixture that stand: those chosen before a rollout batch's first update, for its
    later ones (a forward more); or the sampler's, with sampler.experts."""


class SandboxConfig(Section):
    """How untrusted programs are run (see docs/security.md)."""

    workers: int = Field(default=2, gt=0)
    """Programs that run at once, each on a worker of its own."""
    queue: int = Field(default=64, gt=0)
    """Programs that may wait for a worker; whoever submits more waits. Waiting costs no limit."""
    tier: Literal["auto", "a", "b"] = "auto"
    """a: all layers; b: no namespaces; auto: a, or b where a can't be had and b passes its test."""
    unsafe: bool = False
    """Go on without the layers that this machine refuses. Marks the logs and the report."""
    time_s: float = Field(default=4.0, gt=0)
    wall_factor: float = Field(default=3.0, ge=1)
    memory_mb: int = Field(default=512, ge=64)
    output_mb: int = Field(default=8, gt=0)
    """Limits of one run; recipes' own rows may set theirs. The wall clock stops a program after
    wall_factor * time_s + 1 seconds, CPU time after time_s."""
    packages: tuple[str, ...] = ()
    """Importable besides the standard library, by import name: numpy. Their code is trusted."""
    cgroup: bool = False
    """Also a memory and a process limit by cgroup, where cgroups can be written."""


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint that `vlrl eval` asks for responses."""

    timeout_s: float = Field(default=600.0, gt=0)
    """One try."""
    tries: int = Field(default=6, ge=1)
    backoff_s: float = Field(default=1.0, gt=0)
    """The pause after the first failed try; it doubles up to half a minute."""
    total_s: float = Field(default=1800.0, gt=0)
    """All tries for one response."""
    concurrency: int = Field(default=32, ge=1)
    """Requests under way at once."""


class EvalConfig(Section):
    """Evaluation before, during and after training."""

    suites: tuple[str, ...] = ()
    every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0: only before and after."""
    at_start: bool = True
    at_end: bool = True


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Truncated = Literal["score", "zero", "mask"]


class RewardRoute(Section):
    """What one domain or recipe rewards otherwise; None: as in the rule that it departs from."""

    correct: Weight | None = None
    boxed: Weight | None = None
    think: Weight | None = None
    overlong: Weight | None = None
    language: Weight | None = None
    overlong_buffer: int | None = Field(default=None, gt=0)
    truncated: Truncated | None = None


class RewardsConfig(Section):
    """What the learner is rewarded for: each part's weight, 0 for off (see docs/rewards.md)."""

    correct: Weight = 1.0
    """The verifier's own reward."""
    boxed: Weight = 0.0
    """1 for exactly one box, closed and not empty, after the reasoning."""
    think: Weight = 0.0
    """1 for one closed reasoning part and something after it."""
    overlong: Weight = 0.0
    """DAPO's soft penalty: from 0 down to -1 over the last tokens before sampler.max_tokens."""
    language: Weight = 0.0
    """-1 for a response in another script than the question's."""
    overlong_buffer: int | None = Field(default=None, gt=0)
    """Tokens over which the overlong penalty grows; None: a fifth of sampler.max_tokens."""
    truncated: Truncated = "score"
    """A response cut at sampler.max_tokens: as any other; no part of its reward above 0; or kept
    out of the advantages."""
    domains: dict[str, RewardRoute] = Field(default_factory=dict)
    recipes: dict[str, RewardRoute] = Field(default_factory=dict)
    """By names of data.mixture; a recipe's route departs from its domain's."""
    held_out: str | None = None
    """my_module:my_verifier, a stricter verifier that rewards nothing: what it refuses of the
    responses that were judged correct is counted."""


class RunConfig(Section):
    """One training run."""

    model: ModelConfig = ModelConfig()
    images: ImageConfig = ImageConfig()
    data: DataConfig
    sampler: SamplerConfig = SamplerConfig()
    loss: LossConfig = LossConfig()
    learner: LearnerConfig = LearnerConfig()
    rewards: RewardsConfig = RewardsConfig()
    sandbox: SandboxConfig = SandboxConfig()
    eval: EvalConfig = EvalConfig()
    steps: int = Field(gt=0)
    """Rollout batches to train on."""
    seed: int = 0
    out: Path = Path("runs/latest")
    max_staleness: int = Field(default=0, ge=0)
    """Steps by which rollouts may run ahead of the learner; 0: sampling and learning take turns."""
    checkpoint_every: int = Field(default=50, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    """The newest ones, and besides them the one with the best macro Pass@1 so far."""
    export_checkpoints: bool = True
    """Of several processes: write a Hugging Face checkpoint beside the shards. False where the
    whole model doesn't fit process 0's host memory; `vlrl export` makes one later."""

    @model_validator(mode="after")
    def _minibatches_fit(self) -> RunConfig:
        if self.learner.minibatches > self.data.prompts_per_step:
            raise ValueError("learner.minibatches is larger than data.prompts_per_step")
        return self

    @model_validator(mode="after")
    def _time_to_sleep(self) -> RunConfig:
        if self.sampler.sleep and (self.max_staleness or self.sampler.servers):
            raise ValueError(
                "sampler.sleep is for vLLM in this process, in turns with the learner: not with "
                "sampler.servers or max_staleness"
            )
        return self

    @model_validator(mode="after")
    def _experts_to_replay(self) -> RunConfig:
        if self.learner.routing_replay == "sampler" and not self.sampler.experts:
            raise ValueError("learner.routing_replay=sampler needs sampler.experts=true")
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config and apply overrides such as `learner.lr=1e-5`.

    Raises:
        ConfigError: no such file, not YAML, unknown key, wrong type or value.
    """
    return parse(read_yaml(path), overrides, where=str(path))


def parse(
    tree: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "config"
) -> RunConfig:
    """`load` for a mapping that is already there."""
    merged = apply_overrides(tree, overrides)
    return validate(RunConfig, merged, where)
