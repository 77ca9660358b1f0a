"""Group the neighbours on a leaderboard that cannot be told apart.

From the best robust accuracy downwards, McNemar's exact paired test compares each candidate with
the first one of the current group, on the samples that both have. A candidate that differs beyond
chance begins the next group. Within a group the order of ranks may be due to chance.
"""

from __future__ import annotations

import contextlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from bench.errors import InputError
from bench.pages.leaderboard import Leaderboard
from bench.statistics import mcnemar_p_value
from bench.statistics.comparison import SIGNIFICANCE
from bench.store import Store
from bench.store.summary import AttackedSummary


def with_groups(board: Leaderboard, store: Store) -> Leaderboard:
    """Return a leaderboard whose ranked entries carry the letters of their groups.

    There are no groups if a run's table is damaged, or if there is only one candidate.
    """
    if len(board.ranked) < 2:
        return board
    robust: dict[str, pd.Series[bool]] = {}
    with contextlib.suppress(InputError):
        for entry in board.ranked:
            samples = store.folder(entry.manifest).samples()
            robust[entry.manifest.run] = samples.set_index("index")["robust"]
        letters = group_letters([entry.summary for entry in board.ranked], robust)
        ranked = (replace(entry, group=letters[entry.manifest.run]) for entry in board.ranked)
        return replace(board, ranked=tuple(ranked))
    return board


def group_letters(
    ordered: Sequence[AttackedSummary], robust: Mapping[str, pd.Series[bool]]
) -> dict[str, str]:
    """Return the letter of each run's group: A, B, ..., Z, AA, ...

    Args:
        ordered: the runs, best robust accuracy first.
        robust: for each run, whether each sample is robust, by its index in the data set.
    """
    letters: dict[str, str] = {}
    first: pd.Series[bool] | None = None
    number = -1
    for run in ordered:
        own = robust[run.run]
        if first is None or _differ(first, own):
            first, number = own, number + 1
        letters[run.run] = _letter(number)
    return letters


def _differ(first: pd.Series[bool], second: pd.Series[bool]) -> bool:
    shared = first.index.intersection(second.index)
    one, other = first.loc[shared].astype(bool), second.loc[shared].astype(bool)
    p_value = mcnemar_p_value(int((one & ~other).sum()), int((other & ~one).sum()))
    return p_value < SIGNIFICANCE


def _letter(number: int) -> str:
    high, low = divmod(number, 26)
    return (_letter(high - 1) if high else "") + string.ascii_uppercase[low]
