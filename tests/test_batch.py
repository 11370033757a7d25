from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from tests.tiny_groups import group
from vlrl.batch import LearnerGroup, Microbatch, denominators, microbatches, minibatches
from vlrl.batch import learner_group as to_learner_group
from vlrl.images import ImageFeatures
from vlrl.types import Attempt, Completion, Finish, Group, Problem, Prompt, Status, Verdict


def line(prompt_ids: Sequence[int], images: Sequence[ImageFeatures]) -> torch.Tensor:
    """Positions of a text prompt."""
    return torch.arange(len(prompt_ids)).expand(3, -1)


def pack(
    groups: Sequence[LearnerGroup], max_tokens: int = 10_000, max_patches: int = 10_000
) -> list[Microbatch]:
    return list(
        microbatches(groups, max_tokens=max_tokens, max_patches=max_patches, positions=line)
    )


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def picture(num_patches: int, colour: float = 0) -> ImageFeatures:
    return ImageFeatures(
        pixel_values=torch.full((num_patches, 4), float(colour)),
        grid_thw=(1, 2, num_patches // 2),
        num_tokens=num_patches // 4,
    )


def test_a_row_by_hand(rng: torch.Generator) -> None:
    g = group(rng, prompt=3, responses=(2, 3))
    (row,) = pack([g])
    first, second = (r.token_ids for r in g.responses)
    assert row.token_ids_T.tolist() == [*g.prompt_ids, *first, *second]
    assert row.position_ids_3T.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]] * 3
    assert row.predict_R.tolist() == [2, 3, 2, 5, 6]
    assert row.target_R.tolist() == [*first, *second]
    assert row.response_R.tolist() == [0, 0, 1, 1, 1]
    assert row.advantages_R.tolist() == [1.0, 1.0, -0.5, -0.5, -0.5]
    assert row.places_N == ((0, 0), (0, 1))
    assert row.images == ()


def test_responses_continue_after_the_prompts_largest_position(rng: torch.Generator) -> None:
    g = group(rng, prompt=3, responses=(2,))
    squeezed = torch.tensor([[0, 0, 1], [0, 7, 1], [0, 3, 1]])
    (row,) = microbatches([g], max_tokens=99, max_patches=99, positions=lambda *_: squeezed)
    assert row.position_ids_3T[:, 3:].tolist() == [[8, 9]] * 3


def test_only_response_tokens_are_targets(rng: torch.Generator) -> None:
    groups = [
        group(rng, prompt=4, responses=(3, 1)),
        group(rng, prompt=5, responses=(2,), images=[picture(16)]),
    ]
    (row,) = pack(groups)
    is_response = torch.zeros(len(row.token_ids_T), dtype=torch.bool)
    start = 0
    for span in row.spans:
        end = start + span.num_tokens
        is_response[start + span.prompt_length : end] = True
        start = end
    assert torch.equal(row.token_ids_T[is_response], row.target_R)
    assert [image.grid_thw for image in row.images] == [(1, 2, 8)]


def test_budgets_hold_and_nothing_is_lost(rng: torch.Generator) -> None:
    groups = [
        group(
            rng,
            prompt=5 + 3 * i,
            responses=(4, 9, 0, 7),
            images=[picture(8, i), picture(8, -i)][: i % 3],
        )
        for i in range(9)
    ]
    rows = pack(groups, max_tokens=60, max_patches=16)
    assert max(len(row.token_ids_T) for row in rows) <= 60
    assert max(sum(i.pixel_values.shape[0] for i in row.images) for row in rows) == 16
    places = Counter(place for row in rows for place in row.places_N)
    assert places == Counter((g, r) for g in range(9) for r in (0, 1, 3))
    for row in rows:
        for n, (place, index) in enumerate(row.places_N):
            own = row.target_R[row.response_R == n].tolist()
            assert own == list(groups[place].responses[index].token_ids)


def test_an_image_of_several_prompts_counts_once_and_they_lie_together(
    rng: torch.Generator,
) -> None:
    groups = [
        group(rng, prompt=10 - i, responses=(4,), images=[picture(16, i % 2)], name=str(i))
        for i in range(6)
    ]
    rows = pack(groups, max_patches=16)
    assert [[groups[place].id for place, _ in row.places_N] for row in rows] == [
        ["0", "2", "4"],
        ["1", "3", "5"],
    ]
    assert groups[0].num_patches == 16


def test_equal_pixels_are_the_same_image() -> None:
    assert picture(8).key == picture(8).key != picture(8, 1).key
    # The same numbers on another grid are another picture.
    other = ImageFeatures(pixel_values=torch.zeros(8, 4), grid_thw=(1, 4, 2), num_tokens=2)
    assert other.key != picture(8).key


def test_a_long_group_is_cut_between_responses_with_a_prompt_each(rng: torch.Generator) -> None:
    g = group(rng, prompt=10, responses=(5, 5, 5, 5))
    rows = pack([g], max_tokens=20)
    assert [row.places_N for row in rows] == [((0, 0), (0, 1)), ((0, 2), (0, 3))]
    assert all(row.token_ids_T[:10].tolist() == list(g.prompt_ids) for row in rows)


def test_what_cant_be_cut_goes_alone(rng: torch.Generator) -> None:
    groups = [
        group(rng, prompt=50, responses=(30,), images=[picture(64)]),
        group(rng, prompt=2, responses=(3,)),
    ]
    rows = pack(groups, max_tokens=10, max_patches=4)
    assert [len(row.spans) for row in rows] == [1, 1]


def test_empty_responses_leave_no_row(rng: torch.Generator) -> None:
    assert pack([group(rng, prompt=4, responses=(0, 0))]) == []


def test_minibatches_are_dealt_by_domain(rng: torch.Generator) -> None:
    groups = [
        group(rng, prompt=1, responses=(1,), name=str(i), domain="abc"[i % 3]) for i in range(14)
    ]
    parts = minibatches(groups, 4)
    assert sorted(int(g.id) for part in parts for g in part) == list(range(14))
    assert {len(part) for part in parts} == {3, 4}
    for domain in "abc":
        counts = [sum(g.domain == domain for g in part) for part in parts]
        assert max(counts) - min(counts) <= 1


def test_no_minibatch_is_empty(rng: torch.Generator) -> None:
    groups = [group(rng, prompt=1, responses=(1,))] * 2
    assert [len(part) for part in minibatches(groups, 4)] == [1, 1]
    assert minibatches([], 4) == []


def test_denominators_count_the_whole_update(rng: torch.Generator) -> None:
    groups = [group(rng, prompt=9, responses=(3, 0)), group(rng, prompt=9, responses=(4,))]
    found = denominators(groups, max_response_tokens=16)
    assert (found.num_responses, found.num_tokens, found.max_response_tokens) == (3, 7, 16)


class Spelled:
    """A chat of text prompts, and of images of two tokens."""

    def expand(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(t for i in prompt.token_ids for t in ([i, i] if i == 9 else [i]))

    def features(self, key: str) -> ImageFeatures:
        return picture(8)


def a_group() -> Group:
    def attempt(status: Status, token: int) -> Attempt:
        return Attempt(
            completion=Completion(
                text="", token_ids=(token,), logprobs=(-0.5,), finish=Finish.STOP
            ),
            verdict=Verdict(status=status, correct=False, reward=0.0),
        )

    return Group(
        problem=Problem(id="row/3", domain="logic", question="?", answer="1"),
        prompt=Prompt(token_ids=(1, 9, 2), image_keys=("k",)),
        attempts=[attempt(Status.OK, 3), attempt(Status.ERROR, 4), attempt(Status.OK, 5)],
    )


def test_a_group_becomes_a_learner_group_without_failed_attempts() -> None:
    found = to_learner_group(a_group(), (1.0, -1.0), Spelled())
    assert found.prompt_ids == (1, 9, 9, 2)
    assert found.domain == "logic"
    assert [(r.token_ids, r.advantage, r.index) for r in found.responses] == [
        ((3,), 1.0, 0),
        ((5,), -1.0, 1),
    ]
    assert found.num_patches == 8


def test_for_log_probs_only_no_advantages_are_wanted() -> None:
    found = to_learner_group(a_group(), None, Spelled())
    assert [(r.token_ids, r.advantage) for r in found.responses] == [
        ((3,), 0.0),
        ((4,), 0.0),  # log-probs need no verdict
        ((5,), 0.0),
    ]


def test_advantages_that_dont_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="row/3: 3 advantages for 2 learnable attempts"):
        to_learner_group(a_group(), (1.0, 0.0, -1.0), Spelled())
