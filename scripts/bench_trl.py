"""TRL's side of the step bench: its GRPOTrainer with the SAPO loss, and a clock in a callback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_cases import Elapsed, Settings, Stopwatch, reward

from vlrl.models.load import load_processor
from vlrl.types import Problem


def run_trl(
    checkpoint: Path,
    problems: Sequence[Problem],
    settings: Settings,
    folder: Path,
    between: Callable[[], None],
) -> tuple[list[Elapsed], int]:
    """The time of each of TRL's rollout batches, and its count of tokens.

    `between` is called after each batch.
    """
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    num_steps = len(problems) // settings.prompts
    steps: list[Elapsed] = []

    class Clock(TrainerCallback):
        watch = Stopwatch()

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.watch = Stopwatch()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % settings.updates:
                return
            steps.append(self.watch.elapsed())
            between()
            self.watch = Stopwatch()

    processor = load_processor(str(checkpoint))
    processor.tokenizer.padding_side = "left"
    vocabulary = processor.tokenizer.get_vocab()
    banned = [vocabulary[t] for t in vocabulary if t.startswith(("<|vision", "<|image", "<|video"))]
    trainer = GRPOTrainer(
        model=load_policy_for_trl(checkpoint),
        reward_funcs=trl_reward,
        processing_class=processor,
        train_dataset=trl_dataset(problems),
        callbacks=[Clock()],
        args=GRPOConfig(
            output_dir=str(folder),
            loss_type="sapo",
            num_generations=settings.responses,
            max_completion_length=settings.response_tokens,
            per_device_train_batch_size=settings.prompts * settings.responses // settings.updates,
            gradient_accumulation_steps=1,
            steps_per_generation=settings.updates,
            num_iterations=settings.trl_num_iterations,
            max_steps=num_steps * settings.updates,
            generation_kwargs={
                "min_new_tokens": settings.response_tokens,
                "suppress_tokens": banned,
            },
            learning_rate=settings.lr,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            max_grad_norm=1.0,
            weight_decay=0.0,
            gradient_checkpointing=settings.trl_gradient_checkpointing,
            shuffle_dataset=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    return steps, int(trainer.state.num_input_tokens_seen)


def load_policy_for_trl(checkpoint: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)


def trl_reward(completion_ids: list[list[int]], **columns: object) -> list[float]:
    lengths = {len(ids) for ids in completion_ids}
    assert lengths == {Settings.response_tokens}, f"TRL's responses have {lengths} tokens"
    return [reward(ids) for ids in completion_ids]


def trl_dataset(problems: Sequence[Problem]) -> Any:
    """Conversations; images lie in the data set as PNG, as a user's would."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    message = {"role": Value("string"), "content": Value("string")}
    features: dict[str, Any] = {"prompt": [message]}
    rows: dict[str, Any] = {
        "prompt": [[{"role": "user", "content": problem.question}] for problem in problems]
    }
    if problems[0].images:
        features["image"] = ImageFeature()
        rows["image"] = [{"bytes": problem.images[0], "path": None} for problem in problems]
    return Dataset.from_dict(rows, features=Features(features))
