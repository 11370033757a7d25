"""One to one: can every target have something of its own?"""

from __future__ import annotations

from collections.abc import Sequence


def all_matched(choices: Sequence[Sequence[int]]) -> bool:
    """Whether each target can get one of its choices with none given twice.

    Augmenting paths (Kuhn), without recursion; cost at most targets x choices.
    """
    owner: dict[int, int] = {}
    return all(_augment(target, choices, owner) for target in range(len(choices)))


def _augment(start: int, choices: Sequence[Sequence[int]], owner: dict[int, int]) -> bool:
    """Gives `start` a choice, moving others where that helps."""
    came_from: dict[int, int] = {}  # choice -> the target that reached it
    given: dict[int, int] = {target: choice for choice, target in owner.items()}
    queue = [start]
    for target in queue:
        for choice in choices[target]:
            if choice in came_from:
                continue
            came_from[choice] = target
            if choice in owner:
                queue.append(owner[choice])
                continue
            while True:  # back along the path
                taker = came_from[choice]
                before = given.get(taker)
                owner[choice] = taker
                if taker == start or before is None:
                    return True
                choice = before
    return False
