"""What a search tries next, without a model: no result depends on the batch's size or order."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bench.engines.agenda import Agenda, Item, Sample


@dataclass(frozen=True)
class Round:
    """What a round comes to: after `steps` it succeeds or ends; some claims are not confirmed."""

    steps: int
    succeeds: bool
    false_claim: int | None = None


rounds = st.builds(Round, st.integers(1, 6), st.booleans(), st.one_of(st.none(), st.integers(1, 5)))
worlds = st.integers(1, 4).flatmap(
    lambda count: st.lists(st.lists(rounds, min_size=count, max_size=count), min_size=1, max_size=8)
)


class Batch:
    """A search of nothing: a batch whose items succeed and end as a world says."""

    def __init__(self, world: list[list[Round]], places: int, patience: int) -> None:
        self.world = world
        self.places = places
        self.patience = patience
        """How many items wait until they are looked at."""
        self.agenda = Agenda(range(len(world)), len(world[0]))
        self.taken: dict[tuple[int, int], int] = {}
        self.items: list[Item] = []
        self.waiting: list[Item] = []
        self.returning: list[Item] = []

    def run(self) -> list[Sample]:
        done: list[Sample] = []
        while self._advance():
            assert len(self.items) <= self.places
            done += self.agenda.take_done()
        return done

    def _advance(self) -> bool:
        back = self.returning[: self.places - len(self.items)]
        del self.returning[: len(back)]
        self.agenda.resume(back)
        new = self.agenda.start(self.places - len(self.items) - len(back))
        self.items += [*back, *new]
        if not self.items:
            if not self.waiting:
                return False
            self._look()
            return True
        leaving = []
        for item in self.items:
            key = (item.sample.row, item.round)
            self.taken[key] = steps = self.taken.get(key, 0) + 1
            planned = self.world[item.sample.row][item.round]
            if steps in (planned.steps, planned.false_claim) or item.superseded:
                leaving.append(item)
        self.items = [item for item in self.items if item not in leaving]
        self.agenda.wait(leaving)
        self.waiting += leaving
        if len(self.waiting) >= self.patience:
            self._look()
        return True

    def _look(self) -> None:
        waiting, self.waiting = self.waiting, []
        for item in waiting:
            planned = self.world[item.sample.row][item.round]
            steps = self.taken[item.sample.row, item.round]
            if steps < planned.steps and not item.superseded:
                self.returning.append(item)
            else:
                succeeded = planned.succeeds and steps == planned.steps
                before = item.superseded
                counts = self.agenda.end(item, steps, broken=succeeded)
                assert counts == (succeeded and not before)


@given(worlds, st.integers(1, 12), st.integers(1, 5))
def test_a_sample_is_broken_by_its_first_round_that_succeeds(
    world: list[list[Round]], places: int, patience: int
) -> None:
    batch = Batch(world, places, patience)
    done = {sample.row: sample for sample in batch.run()}
    assert sorted(done) == list(range(len(world)))
    assert batch.agenda.rounds_ended == 0
    for row, planned in enumerate(world):
        first = next((at for at, each in enumerate(planned) if each.succeeds), None)
        assert done[row].broke == first
        # The rounds that decide were searched to their end, whatever ran beside them.
        for number in range(len(planned) if first is None else first + 1):
            assert done[row].steps[number] == planned[number].steps


@given(worlds)
def test_one_place_takes_no_step_in_vain(world: list[list[Round]]) -> None:
    """With one place nothing is started ahead of its turn, and samples are done in their order."""
    done = Batch(world, places=1, patience=1).run()
    assert [sample.row for sample in done] == list(range(len(world)))
    for sample, planned in zip(done, world, strict=True):
        last = len(planned) - 1 if sample.broke is None else sample.broke
        assert sorted(sample.steps) == list(range(last + 1))


def test_a_sample_goes_on_before_another_begins() -> None:
    agenda = Agenda([5, 6, 7], 2)
    first, second = agenda.start(2)
    assert [(first.sample.row, first.round), (second.sample.row, second.round)] == [(5, 0), (6, 0)]
    agenda.wait([second])
    assert not agenda.end(second, 4, broken=False)
    (third,) = agenda.start(1)
    assert (third.sample.row, third.round) == (6, 1)
    agenda.wait([third])
    assert agenda.end(third, 2, broken=True)
    assert [sample.row for sample in agenda.take_done()] == [6]
    assert agenda.take_done() == []


def test_free_places_take_later_rounds_the_earliest_first() -> None:
    agenda = Agenda([3, 8], 4)
    items = agenda.start(7)
    assert [(item.round, item.sample.row) for item in items] == [
        (0, 3),
        (0, 8),
        (1, 3),
        (1, 8),
        (2, 3),
        (2, 8),
        (3, 3),
    ]
    agenda.wait([items[2]])
    assert agenda.end(items[2], 1, broken=True)
    assert [item.superseded for item in items] == [False, False, False, False, True, False, True]
    # The first round may still break the sample; the later ones end without a say.
    agenda.wait([items[4], items[0], items[6]])
    assert not agenda.end(items[4], 1, broken=True)
    assert not agenda.end(items[6], 1, broken=True)
    assert agenda.done == []
    assert agenda.end(items[0], 3, broken=True)
    (done,) = agenda.take_done()
    assert (done.row, done.broke, done.steps) == (3, 0, {1: 1, 2: 1, 3: 1, 0: 3})
