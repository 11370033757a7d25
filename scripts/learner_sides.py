"""The three learners that the bench compares, each with its own loop over the same update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from learner_job import Job, Rows, rows_of

from vlrl.batch import LearnerGroup
from vlrl.images import ImageFeatures

NO_CLIP = 1e9
"""A bound on the gradient's norm that never holds: every side works it out, none clips."""
TAU = (1.0, 1.05)
"""SAPO's temperatures for positive and negative advantages."""
SIDES = ("padded", "padded_group", "trl", "vlrl_lean", "vlrl")
LEAN = ("gradient_checkpointing=true", "products=onednn")
"""Settings of `vlrl_lean`: of speed and memory, memory; rows are of one length here."""


class Side(Protocol):
    """A learner that holds a model and its optimiser."""

    def prepare(self, groups: Sequence[LearnerGroup]) -> None:
        """Take the update's inputs, in the way that this learner keeps them."""
        ...

    def update(self) -> None:
        """Forward, backward and the optimiser's step over the whole job."""
        ...


def make_side(name: str, model: Any, job: Job) -> Side:
    if name in ("padded", "padded_group"):
        return PaddedSide(model, job, rows=1 if name == "padded" else job.responses)
    if name == "vlrl_lean":
        job = replace(job, vlrl_settings=(*LEAN, *job.vlrl_settings))
    return TrlSide(model, job) if name == "trl" else VlrlSide(model, job)


class PaddedSide:
    """Whole sequences through the plain transformers model, `rows` at a time.

    It scores response positions only (`logits_to_keep`) and makes no copies of pixels.
    """

    def __init__(self, model: Any, job: Job, rows: int) -> None:
        self.model = model.eval()
        self.job = job
        self.rows_at_once = rows
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=job.lr, weight_decay=0.0)

    def prepare(self, groups: Sequence[LearnerGroup]) -> None:
        self.rows = rows_of(self.job, groups, self.rows_at_once)

    def update(self) -> None:
        for rows in self.rows:
            self._loss(rows).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), NO_CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self, rows: Rows) -> torch.Tensor:
        device = self.job.device
        ids_BT = rows.ids_BT.to(device)
        output = self.model(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            mm_token_type_ids=(ids_BT == self.job.media.image).int(),
            pixel_values=rows.pixels.to(device),
            image_grid_thw=rows.grids.to(device),
            use_cache=False,
            logits_to_keep=self.job.response_tokens + 1,
        )
        logits_BRV = output.logits[:, :-1].float()
        targets_BR = ids_BT[:, rows.prompt_length :]
        logprobs_BR = logits_BRV.log_softmax(dim=-1).gather(2, targets_BR[..., None])[..., 0]
        ratio_BR = (logprobs_BR - rows.sampler_logprobs_BR.to(device)).exp()
        advantages_B1 = rows.advantages_B[:, None].to(device)
        tau_B1 = torch.where(advantages_B1 > 0, TAU[0], TAU[1])
        soft_BR = torch.sigmoid(tau_B1 * (ratio_BR - 1)) * 4 / tau_B1
        num_responses = self.job.prompts * self.job.responses
        return -(soft_BR * advantages_B1).mean(dim=1).sum() / num_responses


class TrlSide:
    """TRL's GRPOTrainer: its own `compute_loss` on inputs as its rollout prepares them.

    As there, the pixels of every row of the update wait on the device, in fp32, once a response.
    """

    def __init__(self, model: Any, job: Job) -> None:
        self.job = job
        self.trainer = make_trainer(model, job)
        self.model = self.trainer.model.train()  # TRL's mode; there is no dropout
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=job.lr, weight_decay=0.0)

    def prepare(self, groups: Sequence[LearnerGroup]) -> None:
        rows = rows_of(self.job, groups, self.job.trl_rows)
        self.batches = [self._prepared(part) for part in rows]
        # Hugging Face's Trainer sets this before each optimiser step.
        self.trainer.current_gradient_accumulation_steps = len(self.batches)

    def update(self) -> None:
        for batch in self.batches:
            with self.trainer.compute_loss_context_manager():
                loss = self.trainer.compute_loss(self.model, batch)
            self.trainer.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), NO_CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _prepared(self, rows: Rows) -> dict[str, Any]:
        device, length = self.job.device, rows.prompt_length
        ids_BT = rows.ids_BT.to(device)
        return {
            "prompt_ids": ids_BT[:, :length],
            "prompt_mask": torch.ones_like(ids_BT[:, :length]),
            "completion_ids": ids_BT[:, length:],
            "completion_mask": torch.ones_like(ids_BT[:, length:]),
            "advantages": rows.advantages_B.to(device),
            "old_per_token_logps": rows.sampler_logprobs_BR.to(device),
            "pixel_values": rows.pixels.to(device),
            "image_grid_thw": rows.grids.to(device),
            "num_images": [1] * ids_BT.shape[0],
            "mm_token_type_ids": (ids_BT == self.job.media.image).int(),
        }


def make_trainer(model: Any, job: Job) -> Any:
    """A GRPOTrainer that never trains by itself: the bench calls its loss.

    Raises:
        ModuleNotFoundError: TRL isn't installed; it is in the extra `bench`.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from vlrl.models.load import load_processor

    processor = load_processor("tiny-qwen3-vl")  # the constructor wants one; it sees no text here
    processor.tokenizer.padding_side = "left"
    return GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        processing_class=processor,
        train_dataset=Dataset.from_dict({"prompt": ["none"] * job.trl_rows}),
        args=GRPOConfig(
            output_dir="unused",
            loss_type="sapo",
            sapo_temperature_pos=TAU[0],
            sapo_temperature_neg=TAU[1],
            beta=0.0,
            temperature=1.0,
            num_generations=job.responses,
            max_completion_length=job.response_tokens,
            per_device_train_batch_size=job.trl_rows,
            generation_batch_size=job.trl_rows * job.responses,
            gradient_checkpointing=job.trl_gradient_checkpointing,
            bf16=job.dtype == "bfloat16",
            use_cpu=job.device == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
    )


class VlrlSide:
    """vlrl's Learner, one group a micro-batch unless `vlrl_settings` say otherwise."""

    def __init__(self, model: Any, job: Job) -> None:
        from vlrl.config import LearnerConfig, LossConfig, apply_overrides, validate
        from vlrl.learner import Learner

        base = {
            "lr": job.lr,
            "warmup_updates": 0,
            "minibatches": 1,
            "max_grad_norm": NO_CLIP,
            "tokens_per_microbatch": job.group_tokens,
        }
        self.job = job
        self.learner = Learner(
            model,
            config=validate(LearnerConfig, apply_overrides(base, job.vlrl_settings), "learner"),
            loss=LossConfig(name="sapo", tau_pos=TAU[0], tau_neg=TAU[1]),
            temperature=1.0,
            banned_token_ids=(),  # the other sides ban nothing
            max_response_tokens=job.response_tokens,
        )

    def prepare(self, groups: Sequence[LearnerGroup]) -> None:
        self.groups = [replace(g, images=tuple(map(self._stored, g.images))) for g in groups]

    def _stored(self, image: ImageFeatures) -> ImageFeatures:
        """As vlrl's image store keeps it: in the policy's dtype, page-locked beside a GPU."""
        pixels = image.pixel_values.to(getattr(torch, self.job.dtype))
        return replace(
            image, pixel_values=pixels.pin_memory() if self.job.device == "cuda" else pixels
        )

    def update(self) -> None:
        stats = self.learner.update(self.groups)
        assert not stats.skipped, "a gradient was not finite"
