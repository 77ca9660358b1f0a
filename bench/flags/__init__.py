"""Reliability flags: what makes an attack's number doubtful, measured.

Inspections look at a candidate's answers before any attack, reviews at the finished records; both
are registered (`bench.flags.registry`), those of the package in `bench.flags.built_in`. The flags
of `bench.flags.extra` need attacks of their own, on a few dozen samples; those of
`bench.flags.certificates` join a certification with attacks.

Sources: the checks of AutoAttack (Croce and Hein 2020, arXiv 2003.01690, and its `flags_doc`),
Carlini et al. 2019 (arXiv 1902.06705) and Tramer et al. 2020 (arXiv 2002.08347).
"""

import bench.flags.built_in  # noqa: F401 - registers the package's flags before any other
from bench.flags.attacks import skipped_attacks, square_beats_gradients, unconverged
from bench.flags.chance import chance_level
from bench.flags.finiteness import non_finite_logits, non_finite_votes
from bench.flags.inspection import inspect
from bench.flags.registry import (
    Answers,
    Finished,
    flags_of_records,
    register_gradient_inspection,
    register_inspection,
    register_review,
)
from bench.store.summary import Flag

__all__ = [
    "Answers",
    "Finished",
    "Flag",
    "chance_level",
    "flags_of_records",
    "inspect",
    "non_finite_logits",
    "non_finite_votes",
    "register_gradient_inspection",
    "register_inspection",
    "register_review",
    "skipped_attacks",
    "square_beats_gradients",
    "unconverged",
]
