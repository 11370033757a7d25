"""What a reader of the code may count on, where a linter doesn't look."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "vlrl"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_MODULE, MAX_TRAIN, MAX_FUNCTION = 400, 150, 60


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_are_short_and_say_their_idea(path: Path) -> None:
    source = path.read_text()
    lines = source.count("\n")
    assert lines <= (MAX_TRAIN if path.name == "train.py" else MAX_MODULE)
    tree = ast.parse(source)
    if tree.body and path.name != "__init__.py":
        assert ast.get_docstring(tree), "a module says its one idea"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{node.name} has {length} lines"


def test_the_nouns_import_nothing_of_ours() -> None:
    tree = ast.parse((PACKAGE / "types.py").read_text())
    imported = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not [name for name in imported if name and name.startswith("vlrl")]


def test_only_the_samplers_know_vllm() -> None:
    for path in MODULES:
        if "samplers" not in path.parts and path.name != "doctor.py":
            assert "import vllm" not in path.read_text(), path
            assert "from vllm" not in path.read_text(), path
