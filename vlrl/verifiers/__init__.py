"""Verifiers that are not among the built-in tasks: a user's function, or a judge elsewhere."""

from vlrl.verifiers.function import FunctionTask, Verifier
from vlrl.verifiers.http_judge import HttpJudge
from vlrl.verifiers.llm_judge import LlmJudge
from vlrl.verifiers.remote import Endpoint, JudgeError, Patience

__all__ = [
    "Endpoint",
    "FunctionTask",
    "HttpJudge",
    "JudgeError",
    "LlmJudge",
    "Patience",
    "Verifier",
]
