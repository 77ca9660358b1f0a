"""Cases by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import kinds, uses
from tests.fuzz.case import Case, Draws

SHARES: tuple[tuple[int, Callable[[Path, Draws], Case]], ...] = (
    (22, kinds.a_network),
    (6, kinds.a_linear_network),
    (12, kinds.some_weights),
    (2, kinds.old_weights),
    (2, kinds.a_named_state),
    (11, kinds.an_archive),
    (9, kinds.an_image_folder),
    (4, kinds.fields_of_data),
    (3, kinds.a_selection),
    (1, kinds.tiny_images),
    (6, kinds.a_changed_suite),
    (5, kinds.a_changed_submission),
    (3, kinds.a_radius),
    (6, kinds.adversarial_images),
    (5, kinds.a_certification_log),
    (2, kinds.a_certification),
    (1, kinds.a_mix),
    (4, kinds.a_changed_candidate),
    (1, kinds.changed_data),
    (6, uses.some_options),
    (2, uses.an_interruption),
    (2, uses.a_damaged_record),
    (2, uses.several_candidates),
    (1, uses.a_sweep),
    (1, uses.hostile_texts),
    (1, uses.joined_images),
    (2, uses.other_commands),
)
"""How often each kind comes."""


def make_case(number: int, folder: Path) -> Case:
    """Write the files of a case into an empty folder; the same number makes the same case."""
    draws = Draws(number)
    shares, makers = zip(*SHARES, strict=True)
    (maker,) = draws.choices.choices(makers, shares)
    case: Case = maker(folder, draws)
    return case
