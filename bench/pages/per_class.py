"""Accuracy class by class, and which classes are taken for which under attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.pages.candidate_records import CandidateRecords
from bench.store.records import IntArray

MOST_IN_MATRIX = 20
"""Classes of which a matrix can still be read."""

LISTED_CONFUSIONS = 15


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracies of one class, fractions in [0, 1].

    Attributes:
        label: its number.
        name: its name.
        n: number of its samples.
        clean: share that is right without attack.
        robust: share that survived every attack.
        confused: name of the wrong class that most of its samples are given under attack, with
            their number; empty and 0: there is none.
    """

    label: int
    name: str
    n: int
    clean: float
    robust: float
    confused: str
    confusions: int


@dataclass(frozen=True)
class Confusion:
    """`count` of the `n` samples of class `true` are taken for class `predicted` under attack."""

    true: str
    predicted: str
    count: int
    n: int


def class_accuracies(records: CandidateRecords) -> list[ClassAccuracy]:
    """Return the classes that have samples, the least robust first."""
    rows = []
    for label in np.unique(records.labels).tolist():
        its = records.labels == label
        wrong = records.prediction[its & ~records.robust]
        wrong = wrong[wrong != label]
        values, counts = np.unique(wrong, return_counts=True)
        most = int(counts.argmax()) if len(counts) else -1
        rows.append(
            ClassAccuracy(
                label=label,
                name=records.class_name(label),
                n=int(its.sum()),
                clean=float(records.clean_correct[its].mean()),
                robust=float(records.robust[its].mean()),
                confused=records.class_name(int(values[most])) if len(counts) else "",
                confusions=int(counts[most]) if len(counts) else 0,
            )
        )
    return sorted(rows, key=lambda row: (row.robust, row.clean, row.label))


def confusion_matrix(records: CandidateRecords) -> IntArray:
    """Return the counts (K, K + 1) of each class taken for each under attack; last: no answer."""
    size = records.class_count
    predicted = np.where(records.prediction < 0, size, records.prediction)
    matrix = np.zeros((size, size + 1), dtype=np.int64)
    np.add.at(matrix, (records.labels, predicted), 1)
    return matrix


def top_confusions(records: CandidateRecords, most: int = LISTED_CONFUSIONS) -> Sequence[Confusion]:
    """Return the most frequent confusions under attack."""
    wrong = records.prediction != records.labels
    pairs = np.stack((records.labels[wrong], records.prediction[wrong]), axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        Confusion(
            true=records.class_name(int(found[place, 0])),
            predicted=records.class_name(int(found[place, 1])),
            count=int(counts[place]),
            n=int((records.labels == found[place, 0]).sum()),
        )
        for place in order.tolist()
    ]
