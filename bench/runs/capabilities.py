"""Which properties of a candidate adaptive attacks can use, and which attacks apply to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from bench.attacks import ATTACKS
from bench.attacks.image_gradient import means_no_gradient
from bench.attacks.registry import Need
from bench.attacks.straight_through import flat_operations
from bench.candidates import Candidate
from bench.engines.answering import answered_rows
from bench.suites.suite import AttackChoice

TRIED_IMAGES = 4


def capabilities(candidate: Candidate, images: Tensor) -> frozenset[Need]:
    """Return the properties of a candidate that attacks may need.

    Args:
        images: (n, C, H, W), a few images on the candidate's device.
    """
    found: set[Need] = set()
    if candidate.mix is not None:
        found.add("mix")
        if candidate.mix.has_mixing_network:
            found.add("mixing network")
    if candidate.surrogate is not None or _stops_gradients(candidate, images):
        found.add("stopped gradient")
    if candidate.randomized:
        found.add("randomness")
    return frozenset(found)


def needing(attacks: Iterable[AttackChoice]) -> list[AttackChoice]:
    """Return the attacks that need something of a candidate."""
    return [each for each in attacks if each.name in ATTACKS and ATTACKS[each.name].need]


def applicable(
    attacks: Sequence[AttackChoice], candidate: Candidate, images: Tensor
) -> tuple[AttackChoice, ...]:
    """Return the attacks of a protocol that apply to the candidate; unknown ones stay."""
    needs = {choice.name: ATTACKS[choice.name].need for choice in attacks if choice.name in ATTACKS}
    if not any(needs.values()):
        return tuple(attacks)
    has = capabilities(candidate, images)
    return tuple(
        choice for choice in attacks if (need := needs.get(choice.name)) is None or need in has
    )


def _stops_gradients(candidate: Candidate, images: Tensor) -> bool:
    tried = images[:TRIED_IMAGES]
    try:
        return bool(flat_operations(candidate.module, tried))
    except Exception as error:  # foreign code may raise anything
        if means_no_gradient(error):
            return False  # what it writes in place cannot be differentiated in any way
        answered = answered_rows(candidate.module, tried)
        if len(answered) == len(tried):
            raise
        return bool(flat_operations(candidate.module, tried[answered]))
