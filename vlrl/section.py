"""A section of a config: what it is, and how one is read from YAML, changed and written.

An unknown key is an error that names the nearest valid one; a wrong type names the key's path.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A config that can't be used. The message names the file and the key, and what to do."""


S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A part of the config: frozen, strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        ConfigError: no such file, not YAML, or no mapping at its top.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}{_yaml_error(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of keys to values is wanted, not {_kind(tree)}")
    return tree


def dump(config: BaseModel, path: Path) -> None:
    """Write a config, whole or not at all, so that `load` gives the same one back."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the tree with each `a.b.c=value` set; values are read as YAML.

    Raises:
        ConfigError: an override without `=`, or one that goes through a value that is no section.
    """
    merged: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: write it as key=value")
        *parents, leaf = key.strip().split(".")
        node = merged
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
        try:
            node[leaf] = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}{_yaml_error(error)}") from error
    return merged


def validate(section: type[S], tree: Mapping[str, Any], where: str) -> S:
    """The typed section of a plain tree.

    Raises:
        ConfigError: every unknown key (with the nearest valid one) and every wrong value, by path.
    """
    try:
        return section.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        lines = [_explain(section, dict(e)) for e in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def _explain(section: type[Section], error: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors."""
    location = [str(part) for part in error["loc"]]
    path = ".".join(location)
    if error["type"] == "extra_forbidden":
        valid = list(_keys_at(section, location[:-1]))
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(valid))}"
        return f"unknown key {path!r}: {hint}"
    if error["type"] == "missing":
        return f"key {path!r} is missing"
    message = _WORDS.get(error["type"], str(error["msg"]).removeprefix("Value error, "))
    given = "" if isinstance(error["input"], dict) else f" (given: {error['input']!r})"
    return f"key {path!r}: {message}{given}" if path else message


_WORDS = {
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list, such as [a, b]",
    "too_short": "must not be empty",
}
"""Of pydantic's errors, by type, those that speak of JSON or Python instead of YAML."""


def _yaml_error(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """Where it isn't YAML and why, on one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f": not valid YAML: {str(error).splitlines()[0]}"
    mark = error.problem_mark
    said = ": ".join(part for part in (error.context, error.problem) if part)
    return f", line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {said}"


def _kind(tree: object) -> str:
    return "an empty file" if tree is None else f"a {type(tree).__name__}"


def _keys_at(section: type[Section], path: Sequence[str]) -> Iterator[str]:
    """The valid keys of the section at a path below `section`."""
    for part in path:
        field = section.model_fields.get(part)
        inner = _section_in(field.annotation) if field else section
        section = inner or section
    yield from section.model_fields


def _section_in(annotation: object) -> type[Section] | None:
    """The Section inside an annotation such as `dict[str, DomainConfig]` or `EvalConfig | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, Section) else None
    found = (_section_in(part) for part in get_args(annotation))
    return next((section for section in found if section), None)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads `1e-6` as a number, as YAML 1.2 does, and refuses doubles."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # pyright: ignore[reportUnknownMemberType]
            if key in seen:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
