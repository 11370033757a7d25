"""The domains. A new one is a file like those beside this one, and a line here."""

from vlrl.tasks.base import Row, RowError, Task
from vlrl.tasks.coding import Coding
from vlrl.tasks.image_qa import ImageQA
from vlrl.tasks.logic import Logic
from vlrl.tasks.math_qa import MathQA

TASKS: dict[str, Task] = {
    "math_qa": MathQA(),
    "coding": Coding(),
    "image_qa": ImageQA(),
    "logic": Logic(),
}

__all__ = ["TASKS", "Row", "RowError", "Task"]
