"""Holds the records and the output of a command against what was computed apart from bench."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tests.fuzz.problem import Booleans, Images, Labels, Problem

_LINE = re.compile(
    r"^(\S+): clean ([\d.]+)%, robust ([\d.]+)%(?: \[.*\])?, n = (\d+)", re.MULTILINE
)


def run_of(output: str, candidate: str = "") -> Path | None:
    """The folder of the complete run that a command's output names last; None if there is none."""
    named = [Path(each) for each in re.findall(r"^  records: (.*)$", output, re.MULTILINE)]
    own = [folder for folder in named if candidate in ("", folder.parent.name)]
    folder = own[-1] if own else None
    return folder if folder is not None and (folder / "run.json").is_file() else None


def confirm_run(
    problems: list[Problem],
    output: str,
    words: tuple[str, ...] = (),
    n: int | None = None,
    candidate: str = "",
) -> list[str]:
    """What is wrong with the run that an evaluation left; nothing if one of the problems fits.

    Args:
        problems: right readings of the input.
        output: of the command.
        words: texts of which the output must contain one, unless empty.
        n: how many samples, whichever they are; None: all, in their order.
        candidate: whose run, if there are several.
    """
    folder = run_of(output, candidate)
    if folder is None:
        return ["no run: exit 0 without records"]
    complaints = [_complaints(folder, problem, output, n) for problem in problems]
    best = min(complaints, key=len)
    if not best and words and not any(word in output for word in words):
        return [f"no word of {' | '.join(words)}"]
    return best


def _complaints(folder: Path, problem: Problem, output: str, n: int | None) -> list[str]:
    samples = pd.read_parquet(folder / "samples.parquet").sort_values("index")
    summary = json.loads((folder / "run.json").read_text())
    index = samples["index"].to_numpy()
    whole = list(range(len(problem.labels)))
    if n is None and index.tolist() != whole:
        return [f"samples: expected all {len(whole)}, got {index.tolist()}"]
    if n is not None and not (len(index) == n == len(set(index)) and set(index) <= set(whole)):
        return [f"samples: expected {n} of {len(whole)}, got {index.tolist()}"]
    problem = problem.take(index)
    if samples["label"].tolist() != problem.labels.tolist():
        return ["samples: other labels than the data's"]
    correct = samples["clean_correct"].to_numpy(bool)
    robust = samples["robust"].to_numpy(bool)
    found = _of_summary(summary, correct, robust, output, folder.parent.name)
    if problem.unanswered(problem.images, problem.labels).any():
        found += _not_counted(summary)
    surely, perhaps = problem.right()
    if (surely & ~correct).any() or (correct & ~perhaps).any():
        found.append(
            f"clean accuracy: {correct.mean():.4f}, computed apart {surely.mean():.4f}"
            + ("" if (surely == perhaps).all() else f" to {perhaps.mean():.4f}")
        )
    if (robust & ~correct).any():
        found.append("robust samples that are wrong without attack")
    return found + _of_attacks(folder, problem, index, correct, robust)


def _of_summary(
    summary: dict[str, Any], correct: Booleans, robust: Booleans, output: str, candidate: str
) -> list[str]:
    found = []
    for name, mask in (("clean_accuracy", correct), ("robust_accuracy", robust)):
        if abs(summary[name] - mask.mean()) > 1e-9:
            found.append(f"{name}: run.json says {summary[name]}, the samples {mask.mean()}")
    lines = _LINE.findall(output)
    lines = [line for line in lines if line[0] == candidate] or lines
    if not lines:
        return [*found, "no line with the accuracies"]
    _, clean, attacked, n = lines[-1]
    shown = (float(clean) / 100, float(attacked) / 100, int(n))
    expected = (correct.mean(), robust.mean(), len(correct))
    if any(abs(a - b) > 6e-5 for a, b in zip(shown, expected, strict=True)):
        found.append(f"printed numbers: {shown}, recorded {expected}")
    if any(not 0 <= attack["accuracy_after"] <= 1 for attack in summary["attacks"]):
        found.append("an accuracy outside [0, 1]")
    return found


def _not_counted(summary: dict[str, Any]) -> list[str]:
    """What is wrong if answers that are not finite are not flagged."""
    raised = [flag["name"] for flag in summary["flags"]]
    return [] if "non-finite-logits" in raised else ["no flag: of answers that are not finite"]


def _of_attacks(
    folder: Path, problem: Problem, places: Labels, correct: Booleans, robust: Booleans
) -> list[str]:
    found = []
    broken = set(np.flatnonzero(correct & ~robust).tolist())
    index, images, predictions = witnesses(folder, problem.images, places)
    if missing := broken - set(index.tolist()):
        found.append(f"broken without a witness: {sorted(missing)}")
    if len(index):
        outside = problem.outside(images, problem.images[index])
        if outside.any():
            found.append(f"witnesses outside the ball or [0, 1]: {index[outside].tolist()}")
        margin, doubt = problem.margins(images, problem.labels[index])
        if (margin > doubt).any():
            found.append(f"witnesses that break nothing: {index[margin > doubt].tolist()}")
        if (predictions == problem.labels[index]).any():
            found.append("witnesses that are recorded as predicted right")
        absent = ~np.isfinite(margin) & (predictions != -1)
        if (~np.isfinite(margin)).any():
            found += _not_counted(json.loads((folder / "run.json").read_text()))
        if absent.any():
            classes = predictions[absent].tolist()
            found.append(f"a class is recorded for an answer that is not finite: {classes}")
    sure = problem.surely_robust()
    if sure is not None and (sure & correct & ~robust).any():
        found.append("provably robust samples are recorded as broken")
    breakable = problem.surely_breakable()
    if problem.exact_attack and breakable is not None and (breakable & robust).any():
        found.append(
            f"robust accuracy {robust.mean():.4f} overstated: "
            f"{np.flatnonzero(breakable & robust).tolist()} can be broken"
        )
    return found


def witnesses(
    folder: Path, clean: Images, places: Labels
) -> tuple[npt.NDArray[np.int64], Images, npt.NDArray[np.int64]]:
    """Rows (m,), images (m, C, H, W) and predicted classes (m,) of a run's witnesses.

    Unpacked as the documentation of the files says: the difference of bit patterns to the clean
    images (n, C, H, W), in four planes of bytes; these are at ascending `places` (n,).
    """
    path = folder / "witnesses.npz"
    nowhere = np.zeros(0, np.int64)
    if not path.exists():
        return nowhere, clean[:0], nowhere
    with np.load(path, allow_pickle=False) as archive:
        index = np.searchsorted(places, archive["index"])
        planes = archive["difference"].astype(np.uint32)
        predictions = archive["prediction"]
    bits = planes[0] | planes[1] << 8 | planes[2] << 16 | planes[3] << 24
    images = (clean[index].view(np.uint32) + bits).view(np.float32)
    return index, images, predictions


def flags_of(output: str) -> set[str]:
    """Names of the flags of the run that a command's output names last."""
    folder = run_of(output)
    if folder is None:
        return set()
    return {flag["name"] for flag in json.loads((folder / "run.json").read_text())["flags"]}
