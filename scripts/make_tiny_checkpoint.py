"""Make the built-in checkpoint: a random tiny Qwen3-VL, then a short supervised cold start.

The cold start is plain supervised learning on the reference responses of the quickstart's training
rows. A domain rests while the model gives its reference with a probability above --rest; what it
then forgets it learns again sooner, under RL too. After --steps only the domains below BAND train,
until all lie in BAND: each has something to learn from and something left to learn. Takes about
fifteen minutes on a CPU core.

    python scripts/make_tiny_checkpoint.py vlrl/models/tiny-qwen3-vl
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen3VLProcessor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from vlrl.batch import LearnerGroup, LearnerResponse
from vlrl.chat import Chat
from vlrl.config import ImageConfig, LearnerConfig, LossConfig
from vlrl.learner import Learner
from vlrl.models.load import save_policy
from vlrl.models.random_tiny import MediaTokens, TinySize, random_model
from vlrl.recipes import open_recipe, target
from vlrl.tasks.base import Row
from vlrl.types import Problem

TOKENS = {
    "chain_sum": 1000,
    "knights_knaves_2": 2000,
    "short_functions": 1000,
    "easy_vqa": 2000,
}
"""Of each recipe in a step."""
BAND = (0.3, 0.58)
EVERY_AFTER = 2
"""Steps between looks once --steps are over."""
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}
{%- else %}{%- for part in message.content %}
{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'text' %}{{- part.text }}{%- endif %}
{%- endfor %}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def make_tokenizer(texts: list[str], vocab_size: int) -> Qwen2Tokenizer:
    """A byte-level BPE in Qwen's form: its pre-tokeniser (digits alone), its special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    trained = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|endoftext|>", "<|im_end|>")],
    )


def make_processor(tokenizer: Qwen2Tokenizer, patch_size: int) -> Qwen3VLProcessor:
    sizes = {"patch_size": patch_size, "merge_size": 2, "temporal_patch_size": 2}
    images = Qwen2VLImageProcessor(
        **sizes,
        size={"shortest_edge": 16384, "longest_edge": 1310720},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Qwen3VLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


class Domain:
    """One recipe's rows as supervised groups of one response each."""

    def __init__(self, recipe: str, chat: Chat) -> None:
        self.name = recipe
        self.chat = chat
        self.recipe = open_recipe(recipe)
        self.stream = self._stream()
        # Not trained on: they only decide when to rest and when to stop.
        self.held_out = [self.group(row) for row in islice(self.recipe.rows("eval"), 128)]

    def _stream(self) -> Iterator[LearnerGroup]:
        while True:
            for row in self.recipe.rows("train"):
                yield self.group(row)

    def take(self, num_tokens: int) -> list[LearnerGroup]:
        """The next rows, about so many tokens: short problems come in larger numbers."""
        taken: list[LearnerGroup] = []
        while sum(group.num_tokens for group in taken) < num_tokens:
            taken.append(next(self.stream))
        return taken

    def group(self, row: Row) -> LearnerGroup:
        problem = Problem(
            id=row.id, domain=self.name, question=row.question, answer="", images=row.images
        )
        prompt = self.chat.render(problem)
        ids = self.chat.tokenizer(target(row), add_special_tokens=False)["input_ids"]
        ids = (*ids, self.chat.tokenizer.eos_token_id)
        response = LearnerResponse(
            index=0, token_ids=ids, sampler_logprobs=(0.0,) * len(ids), advantage=1.0
        )
        return LearnerGroup(
            id=row.id,
            domain=self.name,
            prompt_ids=self.chat.expand(prompt),
            images=tuple(self.chat.features(key) for key in prompt.image_keys),
            responses=(response,),
        )

    def reference_probability(self, learner: Learner) -> float:
        """Mean probability of the whole reference response, on rows of the evaluation split."""
        logprobs = learner.logprobs(self.held_out)
        return float(torch.stack([r[0].sum().exp() for r in logprobs]).mean())


def cold_start(args: argparse.Namespace) -> None:
    texts = [
        text
        for recipe in TOKENS
        for row in islice(open_recipe(recipe).rows("train"), 2000)
        for text in (row.question, target(row))
    ]
    tokenizer = make_tokenizer(texts, args.vocab)
    ids = tokenizer.convert_tokens_to_ids
    media = MediaTokens(
        vision_start=ids("<|vision_start|>"),
        vision_end=ids("<|vision_end|>"),
        image=ids("<|image_pad|>"),
        video=ids("<|video_pad|>"),
    )
    size = TinySize(
        hidden=args.hidden,
        num_layers=args.layers,
        vision_hidden=args.vision_hidden,
        vision_depth=args.vision_depth,
        vocab_size=args.vocab,
    )
    model = random_model("qwen3_vl", size, media, seed=args.seed)
    processor = make_processor(tokenizer, model.config.vision_config.patch_size)
    model.generation_config.eos_token_id = [ids("<|im_end|>"), ids("<|endoftext|>")]
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    chat = Chat(processor, ImageConfig())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    learner = Learner(
        model,
        config=LearnerConfig(lr=args.lr, warmup_updates=30, weight_decay=0.01),
        loss=LossConfig(name="policy_gradient", average="token"),
        temperature=1.0,
        banned_token_ids=chat.banned_token_ids,
        max_response_tokens=256,
    )
    domains = [Domain(recipe, chat) for recipe in TOKENS]
    known = {domain.name: 0.0 for domain in domains}
    start = time.time()
    for step in count(1):
        over = step > args.steps
        rest = BAND[0] if over else args.rest
        active = [domain for domain in domains if known[domain.name] < rest]
        rows = [row for domain in active for row in domain.take(TOKENS[domain.name])]
        learner.update(rows or domains[0].take(TOKENS[domains[0].name]))
        if step % (EVERY_AFTER if over else args.every) == 0:
            known = {domain.name: domain.reference_probability(learner) for domain in domains}
            shown = "  ".join(f"{name} {value:.3f}" for name, value in known.items())
            print(f"step {step}  {time.time() - start:.0f} s  {shown}", flush=True)
            if over and all(BAND[0] < p < BAND[1] for p in known.values()):
                break
    save_policy(model.to(torch.bfloat16), processor, args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--every", type=int, default=50, help="steps between looks")
    parser.add_argument("--rest", type=float, default=0.55)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocab", type=int, default=704)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vision-hidden", type=int, default=64)
    parser.add_argument("--vision-depth", type=int, default=2)
    cold_start(parser.parse_args())


if __name__ == "__main__":
    main()
