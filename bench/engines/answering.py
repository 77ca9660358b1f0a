"""Images on which a candidate raises an error, told from those that it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from bench.errors import FOREIGN_ERRORS, BenchError
from bench.memory.out_of_memory import ImagesAtOnce, is_out_of_memory

Answer = TypeVar("Answer")


def answered_rows(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the rows (m,) of images (n, C, H, W) on which a model raises no error.

    One pass where it raises none; one for each image where it does.

    Raises:
        Exception: the model raises an error on every image, or memory runs out; the model's own.
    """
    rows = torch.arange(len(images))

    def answered(some: Tensor) -> list[int]:
        with torch.no_grad():
            model(images[some.to(images.device)].clone())
        return some.tolist()

    found = in_parts(ImagesAtOnce(max(1, len(rows))), rows, answered, lambda _: [])
    good = [row for part in found for row in part]
    if not good and len(rows):
        answered(rows)
    return torch.tensor(good, dtype=torch.int64)


def in_parts(
    at_once: ImagesAtOnce,
    rows: Tensor,
    work: Callable[[Tensor], Answer],
    without: Callable[[Tensor], Answer],
) -> list[Answer]:
    """Return the results of work on parts of rows (n,), and of `without` for rows that fail.

    As `ImagesAtOnce.in_parts`, but a part on which a candidate raises an error is halved, down to
    the rows (1,) that fail alone.
    """
    results: list[Answer] = []
    waiting = list(torch.split(rows, at_once.size)) if len(rows) else []
    while waiting:
        part = waiting.pop(0)
        try:
            results += at_once.in_parts(part, work)
        except BenchError:
            raise
        except FOREIGN_ERRORS as error:
            if is_out_of_memory(error):
                raise
            middle = len(part) // 2
            if middle:
                waiting[:0] = [part[:middle], part[middle:]]
            else:
                results.append(without(part))
    return results
