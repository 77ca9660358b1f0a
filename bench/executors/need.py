"""Which of several candidates a free worker works for: plain arithmetic on their schedules.

A worker that changes to another candidate must load it and make its passes faster, which costs as
much as many shards. So it stays with its candidate as long as something waits there, and then goes
to where the most work waits for each worker. Few workers load each candidate, and none waits for
the last shards of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bench.executors.schedule import Schedule


def in_order_of_need(
    schedules: Sequence[Schedule], workers: Sequence[int], own: int | None
) -> Iterator[int]:
    """Yield the places of schedules in the order in which a free worker asks them for a shard.

    Args:
        schedules: one for each candidate under way; earlier ones go first where need is the same.
            What costs infinitely much goes before all else.
        workers: how many work for each.
        own: the place of the candidate that the free worker knows; None: it knows none.
    """
    units = [unit for each in schedules if (unit := each.seconds_a_unit) is not None]
    # What nothing is known of yet is taken to be like the others.
    usual = sum(units) / len(units) if units else 1.0

    def need(place: int) -> float:
        cost = schedules[place].cost_waiting
        if math.isinf(cost):
            return cost
        unit = schedules[place].seconds_a_unit
        seconds = cost * (usual if unit is None else unit)
        return seconds / (workers[place] + 1)

    needs = [need(place) for place in range(len(schedules))]
    urgent = [math.isinf(each) for each in needs]
    yield from sorted(
        range(len(schedules)),
        key=lambda place: (urgent[place], place == own, needs[place]),
        reverse=True,
    )
