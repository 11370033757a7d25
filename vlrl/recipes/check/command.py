"""The body of `vlrl data check`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from vlrl.recipes.check.report import show, write_report
from vlrl.recipes.check.walk import CountTokens, check_recipe
from vlrl.recipes.source import open_recipe


def run_check(
    recipe: str, root: Path | None, json_file: Path | None, limit: int | None, model: str | None
) -> bool:
    """Check a recipe, print what was found, write it if wanted; whether it passed.

    Raises:
        ConfigError: no such recipe, or its source can't be read.
        ModelError: no such model.
    """
    opened = open_recipe(recipe, root)
    report = check_recipe(opened, limit=limit, count_tokens=_counter(model) if model else None)
    if json_file:
        write_report(report, json_file)
    return show(report, Console(highlight=False))


def _counter(model: str) -> CountTokens:
    """Counts a text's tokens, without the chat template and images."""
    from vlrl.models.load import load_processor  # imports torch and transformers

    tokenizer = load_processor(model).tokenizer
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
