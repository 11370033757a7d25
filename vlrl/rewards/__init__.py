"""Verdict -> what the learner sees: named parts with weights. Start at composite.py."""

from vlrl.rewards.composite import reward
from vlrl.rewards.rules import PLAIN, RewardRules, Rule, open_rules

__all__ = ["PLAIN", "RewardRules", "Rule", "open_rules", "reward"]
