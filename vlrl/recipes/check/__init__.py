"""`vlrl data check`: what a recipe's rows are like, and whether its golds keep the law."""

from vlrl.recipes.check.law import Breach, Wrong, breaches
from vlrl.recipes.check.report import CheckReport, show, write_report
from vlrl.recipes.check.walk import check_recipe

__all__ = ["Breach", "CheckReport", "Wrong", "breaches", "check_recipe", "show", "write_report"]
