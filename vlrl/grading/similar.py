"""How alike two texts are, for OCR: 1 less the edit distance over the longer one's length (ANLS).

Of arXiv:1905.13648: similarity below a threshold (there 0.5) is no match. Case, Unicode form and
blanks are set aside first.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlrl.grading.text import normalise_text

MAX_CHARACTERS = 2000


def similarity(one: str, other: str) -> float:
    """From 0 to 1; two empty texts have nothing in common."""
    one, other = normalise_text(one), normalise_text(other)
    longer = max(len(one), len(other))
    if not one or not other or longer > MAX_CHARACTERS:
        return 0.0
    return 1 - edit_distance(one, other) / longer


def similar_to_one(texts: Sequence[str], answer: str, threshold: float) -> bool:
    """Whether an answer is at least as similar as `threshold` to one of the texts."""
    return any(similarity(text, answer) >= threshold for text in texts)


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance by Myers' and Hyyro's bit vectors: a step a character."""
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for position, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << position
    everything = (1 << len(one)) - 1
    last = 1 << (len(one) - 1)
    more, less, distance = everything, 0, len(one)
    for character in other:
        here = places.get(character, 0)
        vertical = here | less
        horizontal = (((here & more) + more) ^ more) | here
        up = less | ~(horizontal | more) & everything
        down = more & horizontal
        distance += bool(up & last) - bool(down & last)
        up = up << 1 | 1
        down <<= 1
        more = (down | ~(vertical | up)) & everything
        less = up & vertical & everything
    return distance
