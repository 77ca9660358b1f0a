"""Reliability flags: what makes an attack's number doubtful, measured.

Those of `inspect` are measured on a batch before any attack, those of `bench.flags.attacks` and
`bench.flags.finiteness` on the finished records. Those of `bench.flags.extra` need attacks of their
own, on a few dozen samples; those of `bench.flags.certificates` join a certification with attacks.

Sources: the checks of AutoAttack (Croce and Hein 2020, arXiv 2003.01690, and its `flags_doc`),
Carlini et al. 2019 (arXiv 1902.06705) and Tramer et al. 2020 (arXiv 2002.08347).
"""

from bench.flags.attacks import (
    beyond_chance,
    skipped_attacks,
    square_beats_gradients,
    unconverged,
)
from bench.flags.chance import chance_level
from bench.flags.finiteness import non_finite_logits, non_finite_votes
from bench.flags.inspection import inspect

__all__ = [
    "beyond_chance",
    "chance_level",
    "inspect",
    "non_finite_logits",
    "non_finite_votes",
    "skipped_attacks",
    "square_beats_gradients",
    "unconverged",
]
