"""`my_module:my_verifier` -> a task. Only for `vlrl verifier check` and `rewards.held_out`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from typing import Any

from vlrl.config import ConfigError
from vlrl.tasks.base import Task
from vlrl.tasks.function import FunctionTask


def load_task(reference: str, domain: str = "yours") -> Task:
    """The task of that name, or one made of the function of that name.

    Modules are looked for in the current folder too. What is named is a function of (gold,
    response), an object with the methods `problem` and `grade`, or a class that makes one without
    arguments.

    Raises:
        ConfigError: not in the form module:name, no such module or name, an error in the module,
            or something of another shape.
    """
    module_name, colon, name = reference.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{reference!r}: write it as my_module:my_verifier")
    module = _module(reference, module_name)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{reference!r}: {module_name} has no {part!r}{hint}")
        found = getattr(found, part)
    if hasattr(found, "problem") and hasattr(found, "grade"):
        return _made(reference, found) if inspect.isclass(found) else found
    _check_signature(reference, found)
    return FunctionTask(domain, found)


def _module(reference: str, name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"{reference!r}: no module {error.name!r} in {os.getcwd()} or among the installed "
                "packages; run the command where it lies, or set PYTHONPATH"
            ) from error
        raise ConfigError(
            f"{reference!r}: {name} imports {error.name!r}: no such module"
        ) from error
    # Users' code may raise anything while it is imported, sys.exit() included.
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{reference!r}: importing {name} failed: {said}") from error


def _made(reference: str, task_class: Any) -> Any:
    try:
        return task_class()
    except TypeError as error:
        raise ConfigError(f"{reference!r} can't be made without arguments: {error}") from error


def _check_signature(reference: str, found: object) -> None:
    wanted = "a verifier is a function of (gold, response)"
    if not callable(found):
        raise ConfigError(f"{reference!r} is a {type(found).__name__}; {wanted}")
    try:
        signature = inspect.signature(found)
    except ValueError as error:  # some functions in C have none
        raise ConfigError(f"{reference!r} has no signature that can be read; {wanted}") from error
    try:
        signature.bind("gold", "response")
    except TypeError as error:
        raise ConfigError(f"{reference!r} takes {signature}: {error}; {wanted}") from error
