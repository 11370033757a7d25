"""A source's raw row -> a Row, by the recipe's fields, transforms and prompt template.

Templates run in Jinja2's sandbox, a misspelt name is an error, and a row's own text is only ever a
value in them, never a template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from PIL import Image

from vlrl.config import ConfigError
from vlrl.grading.gold import GoldError, form_of
from vlrl.grading.number import parse_number
from vlrl.recipes.schema import Recipe
from vlrl.recipes.transforms import transformed
from vlrl.resources import nearest
from vlrl.tasks.base import Row, RowError, field_note
from vlrl.types import ImageSource

Raw = Mapping[str, object]
NUM_ROWS_LOOKED_AT = 100
"""Rows among which a field must occur at least once, or the recipe is wrong and not the row."""


class SkippedRow(RowError):
    """A row that its recipe names as a known mistake: by the key SPLIT/ID, for a reason."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"skipped by the recipe: {reason}")
        self.key = key
        self.reason = reason


class RowMapper:
    """Maps the rows of one recipe.

    Raises at construction:
        ConfigError: a template is not valid Jinja2.
    """

    def __init__(self, recipe: Recipe, *, from_hub: bool = False) -> None:
        self._recipe = recipe
        self._skip = {} if from_hub and recipe.fields.id is None else recipe.skip
        fields = recipe.fields
        renamed = recipe.hub.fields if recipe.hub and from_hub else {}
        self._places: dict[str, str] = {
            key: renamed.get(key, place)
            for key, place in (
                ("question", fields.question),
                ("answer", fields.answer),
                ("id", fields.id),
                ("options", fields.options),
                ("images", fields.images),
                *((f"extra.{name}", place) for name, place in fields.extra.items()),
            )
            if place is not None
        }
        self._templates = {
            key: self._compile(f"fields.{key}", place)
            for key, place in self._places.items()
            if "{{" in place
        }
        self._prompt = self._compile("prompt", recipe.prompt)

    def check(self, raws: Iterable[Raw], where: str) -> None:
        """That every field the recipe names occurs among the first rows.

        Raises:
            ConfigError: one doesn't; the message names the recipe, the row, the field, and what
                fields there are.
        """
        present = {name for raw in raws for name in raw}
        wanted = {f"fields.{key}": {p} for key, p in self._places.items() if "{{" not in p}
        for key, place in self._places.items():
            if "{{" in place:
                wanted[f"fields.{key}"] = _names_in(place)
        wanted["prompt"] = _names_in(self._recipe.prompt) - {"question", "options"}
        for key, names in wanted.items():
            for name in sorted(names - present):
                raise ConfigError(
                    f"recipe {self._recipe.name}, {where}, row 0: there is no field {name!r} "
                    f"(wanted by {key!r}): {nearest(name, present)}"
                )

    def row(self, raw: Raw, number: int, split: str, folder: Path | None) -> Row:
        """The Row of a raw row.

        Raises:
            SkippedRow: the recipe says so.
            RowError: a field is missing or of the wrong type, the answer is empty, an image file
                is missing.
        """
        identity = self._value(raw, "id") if "id" in self._places else number
        key = f"{split}/{identity}"
        if key in self._skip:
            raise SkippedRow(key, self._skip[key])
        options = self._options(raw)
        images = self._images(raw, folder)
        answer = self._answer(raw, options, images)
        question = self._value(raw, "question")
        if not isinstance(question, str) or not question.strip():
            raise RowError(
                f"the question is {question!r:.60}, text is wanted"
                f"{field_note(self._places, 'question')}"
            )
        known: dict[str, object] = {**raw, "question": question, "options": options}
        return Row(
            id=f"{self._recipe.name}/{split}/{identity}",
            source=self._recipe.name,
            question=_render(self._prompt, known),
            answer=answer,
            options=tuple(options),
            images=images,
            extra={name: self._value(raw, f"extra.{name}") for name in self._recipe.fields.extra},
            bare=question,
            fields=self._places,
        )

    def _answer(self, raw: Raw, options: Sequence[str], images: Sequence[ImageSource]) -> object:
        """The gold answer; an empty text where the recipe names no field for it."""
        if "answer" not in self._places:
            return ""
        given = self._value(raw, "answer")
        # Before the transforms, which would write null as a text.
        try:
            answer = None if given is None else transformed(given, self._recipe.answer, options)
            if answer is None or (isinstance(answer, str | list | tuple) and not _filled(answer)):
                raise RowError("the answer is empty")
            return self._gold(answer, images)
        except RowError as error:
            raise RowError(f"{error}{field_note(self._places, 'answer')}") from error

    def _gold(self, answer: object, images: Sequence[ImageSource]) -> object:
        """The answer as the form that the recipe says, if it says one."""
        spec = self._recipe.gold
        if spec is None or (spec.or_text and parse_number(str(answer)) is None):
            return answer
        try:
            if spec.thousandths:
                answer = _in_thousandths(answer, images)
            return form_of(spec.kind, answer, spec.settings)
        except GoldError as error:
            raise RowError(str(error)) from error

    def _value(self, raw: Raw, key: str) -> object:
        if key in self._templates:
            return _render(self._templates[key], raw)
        place = self._places[key]
        if place not in raw:
            raise RowError(f"there is no field {place!r} (for {key}): the row has {sorted(raw)}")
        return raw[place]

    def _options(self, raw: Raw) -> list[str]:
        value = self._value(raw, "options") if "options" in self._places else None
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise RowError(
                f"the options are {value!r:.60}, a list is wanted"
                f"{field_note(self._places, 'options')}"
            )
        return [str(option) for option in cast(Sequence[object], value)]

    def _images(self, raw: Raw, folder: Path | None) -> tuple[ImageSource, ...]:
        value = self._value(raw, "images") if "images" in self._places else None
        if value is None:
            return ()
        several = isinstance(value, list | tuple)
        values = cast(Sequence[object], value) if several else [value]
        try:
            return tuple(_image(v, folder) for v in values)
        except RowError as error:
            raise RowError(f"{error}{field_note(self._places, 'images')}") from error

    def _compile(self, key: str, text: str) -> jinja2.Template:
        try:
            return _ENVIRONMENT.from_string(text)
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"recipe {self._recipe.name}: key {key!r} is not a Jinja2 template: {error}"
            ) from error


def _image(value: object, folder: Path | None) -> ImageSource:
    """An encoded image from a path, bytes, the hub's {"bytes", "path"} or a PIL image."""
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, Mapping):
        struct = cast(Mapping[str, object], value)
        return _image(struct.get("bytes") or struct.get("path"), folder)
    if isinstance(value, Image.Image):
        buffer = BytesIO()
        value.save(buffer, format="PNG")
        return buffer.getvalue()
    if isinstance(value, str | Path) and str(value):
        path = (folder or Path()) / value
        if not path.is_file():
            raise RowError(f"image {path} is missing")
        return path
    raise RowError(f"the image is {value!r:.60}; a path or an encoded image is wanted")


def _in_thousandths(answer: object, images: Sequence[ImageSource]) -> list[list[float]]:
    """Boxes in pixels of the first image -> in thousandths of its sides."""
    from vlrl.images import ImageError, picture_size  # torch comes with it

    if not images:
        raise RowError("boxes are in thousandths of an image, and there is no image")
    try:
        width, height = picture_size(images[0])
    except ImageError as error:
        raise RowError(str(error)) from error
    boxes = cast(Sequence[Any], answer)
    boxes = boxes if boxes and isinstance(boxes[0], Sequence) else [boxes]
    sides = (width, height, width, height)
    return [[1000 * v / side for v, side in zip(box, sides, strict=True)] for box in boxes]


def _filled(answer: Sequence[object]) -> bool:
    return bool(answer.strip() if isinstance(answer, str) else answer)


def lettered(options: Sequence[object]) -> str:
    """Options as lines for a prompt: `(A) red`, `(B) blue`."""
    return "\n".join(f"({chr(ord('A') + i)}) {option}" for i, option in enumerate(options))


def one_image(text: str) -> str:
    """Of several markers for one picture the first becomes `<image>`; the others go."""
    return re.sub(r"<image[2-9]>", "", text.replace("<image1>", "<image>", 1))


def from_json(text: object) -> object:
    """A field that is a JSON text; an empty one is an empty list."""
    return json.loads(str(text)) if text else []


def _render(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    """The template's text.

    Raises:
        RowError: a name that the row lacks, or an operation that its values don't allow.
    """
    try:
        return template.render(values).strip()
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise RowError(f"the template can't be filled in: {error}") from error


def _names_in(text: str) -> set[str]:
    return meta.find_undeclared_variables(_ENVIRONMENT.parse(text))


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters.update(lettered=lettered, one_image=one_image, from_json=from_json)
