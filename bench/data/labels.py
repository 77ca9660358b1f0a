"""Convert labels of any usual form to places of classes, by number or by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.class_names import numbered, outputs_of
from bench.errors import InputError

Labels = npt.NDArray[np.int64]


def resolve(
    labels: npt.NDArray[Any],
    names: tuple[str, ...] | None,
    classes: tuple[str, ...] | None,
    origin: str,
) -> tuple[Labels, tuple[str, ...]]:
    """Return the index of each sample's class among the network's outputs, and all class names.

    Args:
        labels: (n,) or (n, 1) integers of any type, (n, K) one-hot, or (n,) names.
        names: names of the classes in the data, in the order of integer labels; None: unknown.
        classes: all classes of the suite, in the order of the network's outputs; None: those of the
            data.
        origin: for messages.

    Raises:
        InputError: labels have another form, are beyond the classes, or have an unknown name.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "US":
        return _by_name(labels, names, classes, origin)
    numbers, width = _numbers(labels, origin)
    if names is None and width is not None:
        names = tuple(str(number) for number in range(width)) if classes is None else None
    given = names or classes
    if given is None:
        return numbers, _numbered(int(numbers.max()) + 1, origin)
    if width is not None and width != len(given):
        raise InputError(
            f"{origin}: expected one-hot labels with {len(given)} columns, the number of classes "
            f"that are named, got {width}"
        )
    high = int(numbers.max())
    if high >= len(given):
        start = (
            "; they begin with 1: subtract 1" if numbers.min() >= 1 and high == len(given) else ""
        )
        raise InputError(
            f"{origin}: expected labels below {len(given)}, the number of classes that are named, "
            f"got {high}{start}"
        )
    if names is None or classes is None:
        return numbers, given
    occurring = np.unique(numbers)
    places = outputs_of([names[number] for number in occurring.tolist()], classes, origin)
    return np.asarray(places, np.int64)[np.searchsorted(occurring, numbers)], classes


def _by_name(
    labels: npt.NDArray[Any],
    names: tuple[str, ...] | None,
    classes: tuple[str, ...] | None,
    origin: str,
) -> tuple[Labels, tuple[str, ...]]:
    known = classes or names
    if labels.ndim != 1 or known is None:
        raise InputError(
            f"{origin}: labels are names; expected their classes, in the order of the network's "
            "outputs, as an array `classes` beside them or as `classes` in the suite's data"
        )
    occurring, inverse = np.unique(texts(labels), return_inverse=True)
    places = outputs_of([str(name) for name in occurring], known, origin)
    return np.asarray(places, np.int64)[inverse], known


def _numbers(labels: npt.NDArray[Any], origin: str) -> tuple[Labels, int | None]:
    """Return integers >= 0, and the number of columns if they were one-hot."""
    if labels.dtype.kind not in "biuf":
        raise InputError(f"{origin}: expected labels that are integers >= 0, got {labels.dtype}")
    width = None
    if labels.ndim == 2:
        if not (((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise InputError(
                f"{origin}: expected one label for each image, or one-hot rows; got labels of "
                f"shape {labels.shape} whose rows are no single 1 among 0s"
            )
        width = labels.shape[1]
        labels = labels.argmax(axis=1)
    if labels.dtype.kind == "f":
        whole = np.isfinite(labels) & (labels == np.floor(labels))
        if not whole.all():
            wrong = int(np.flatnonzero(~whole)[0])
            raise InputError(
                f"{origin}: expected labels that are integers >= 0, got {labels[wrong]:g} for "
                f"image {wrong}"
            )
    low = labels.min()
    if low < 0:
        wrong = int(np.flatnonzero(labels < 0)[0])
        raise InputError(
            f"{origin}: expected labels that are integers >= 0, got {int(labels[wrong])} for image "
            f"{wrong}; leave out images without a class"
        )
    high = int(labels.max())
    if high > np.iinfo(np.int64).max:  # it would become negative
        raise InputError(
            f"{origin}: expected labels that are numbers of classes, got {high} for image "
            f"{int(labels.argmax())}; are the labels ids of something else?"
        )
    return labels.astype(np.int64), width


def _numbered(count: int, origin: str) -> tuple[str, ...]:
    try:
        return numbered(count)
    except ValueError as error:
        raise InputError(f"{origin}: {error}; are the labels ids of something else?") from error


def class_names(array: npt.NDArray[Any], origin: str) -> tuple[str, ...]:
    """Return the class names in an array `classes`.

    Args:
        array: (K,) texts or integers, or a single integer K.
        origin: for messages.

    Raises:
        InputError: the array has another form, or a name occurs twice.
    """
    if array.ndim == 0 and array.dtype.kind in "iu" and int(array) > 0:
        return _numbered(int(array), origin)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "USiu":
        raise InputError(
            f"{origin}: expected `classes` as one text for each class, such as np.array(['cat', "
            f"'dog']), got an array of {array.dtype} of shape {array.shape}"
        )
    names = tuple(str(name) for name in texts(array))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{origin}: `classes`: expected each name once, got {repeated[0]!r} twice")
    return names


def texts(array: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Return an array of texts, bytes (as UTF-8) or numbers as texts."""
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array.astype(np.str_)
