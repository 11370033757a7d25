"""Verifiers that are not among the built-in tasks: a user's function, or a judge elsewhere."""

from vlrl.verifiers.function import FunctionTask, Verifier

__all__ = ["FunctionTask", "Verifier"]
