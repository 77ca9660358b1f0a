"""Compare runs on the samples that all of them evaluated: what survives, what broke the rest."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bench.data import named_datasets
from bench.errors import InputError
from bench.formatting import flatten, threat_model
from bench.statistics.paired import PairedCounts, holm_p_values
from bench.store import Store
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest
from bench.store.records import FloatArray
from bench.store.selection import CHOICE_OF_SAMPLES
from bench.store.summary import CertifiedSummary, Summary, SweepSummary

MOST_RUNS = 8


@dataclass(frozen=True)
class Fall:
    """How a candidate lost a sample.

    Attributes:
        text: what happened, such as "wrong without attack" or "broken by apgd-ce".
        step: the attack's step at which it broke; None: there was none, or it is unknown.
        prediction: the class that it predicts, for the adversarial image or without attack; None:
            unknown, or it predicts none.
    """

    text: str
    step: int | None = None
    prediction: int | None = None

    def __str__(self) -> str:
        return self.text if self.step is None else f"{self.text}, step {self.step:,}"


@dataclass(frozen=True)
class Differing:
    """A sample on which candidates differ.

    Attributes:
        index: its place in the data set.
        label: its true class.
        falls: for each candidate how it lost the sample; None: it survived.
    """

    index: int
    label: int
    falls: tuple[Fall | None, ...]


@dataclass(frozen=True)
class Pair:
    """Two of the compared runs.

    Attributes:
        first, second: their places among the runs.
        counts: on how many of the shared samples survive for each.
        adjusted_p_value: McNemar's p-value, adjusted for the number of pairs (Holm).
    """

    first: int
    second: int
    counts: PairedCounts
    adjusted_p_value: float


@dataclass(frozen=True)
class RunComparison:
    """Runs on the samples of all of them.

    Attributes:
        runs: summaries of two or more runs.
        samples: for each run its rows of the shared samples, in their order.
        attempts: for each run its attempts on them.
        standing: by the samples' index, `label` and for each run, by place, whether it survived.
    """

    runs: tuple[Summary, ...]
    samples: tuple[pd.DataFrame, ...]
    attempts: tuple[pd.DataFrame, ...]
    standing: pd.DataFrame

    @property
    def n(self) -> int:
        """The number of shared samples."""
        return len(self.standing)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The candidates, with the run's name where one candidate has several."""
        names = [run.manifest.candidate for run in self.runs]
        return tuple(
            name if names.count(name) == 1 else f"{name}@{run.run}"
            for name, run in zip(names, self.runs, strict=True)
        )

    @cached_property
    def clean_accuracies(self) -> tuple[float, ...]:
        """For each run the share of the shared samples that are right without an attack."""
        tables = zip(self.runs, self.samples, strict=True)
        return tuple(clean_accuracy(run, table) for run, table in tables)

    @cached_property
    def robust_accuracies(self) -> tuple[float, ...]:
        """For each run the share of the shared samples that survive."""
        return tuple(float(self.standing[place].mean()) for place in range(len(self.runs)))

    @property
    def notices(self) -> tuple[str, ...]:
        """What the reader must know of the comparison, one sentence each."""
        return comparison_notices([run.manifest for run in self.runs])

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs of runs, in the order of the runs."""
        places = list(itertools.combinations(range(len(self.runs)), 2))
        counts = [self._counts(one, two) for one, two in places]
        adjusted = holm_p_values([each.p_value for each in counts])
        return tuple(
            Pair(one, two, table, p_value)
            for (one, two), table, p_value in zip(places, counts, adjusted, strict=True)
        )

    @cached_property
    def differing_index(self) -> list[int]:
        """Places in the data set of the samples on which not all runs agree, ascending."""
        number = self.standing[list(range(len(self.runs)))].to_numpy(bool).sum(axis=1)
        mixed = (number > 0) & (number < len(self.runs))
        return [int(index) for index in self.standing.index[mixed]]

    def differing(self, most: int, wanted: Collection[int] = ()) -> list[Differing]:
        """Return up to `most` samples on which not all agree, ascending by their index.

        Where there are more, they are taken from the ways to differ in turn.

        Args:
            wanted: places in the data set of samples that come before others.
        """
        places = range(len(self.runs))
        ways: dict[tuple[bool, ...], list[int]] = {}
        mixed = self.standing.loc[self.differing_index, list(places)]
        for index, *stands in sorted(mixed.itertuples(), key=lambda row: row[0] not in wanted):
            ways.setdefault(tuple(map(bool, stands)), []).append(int(index))
        turns = itertools.chain.from_iterable(itertools.zip_longest(*ways.values()))
        chosen = sorted(itertools.islice((index for index in turns if index is not None), most))
        falls = [self._falls(place, chosen) for place in places]
        labels = self.standing.loc[chosen, "label"].tolist()
        return [
            Differing(index, int(label), tuple(own[row] for own in falls))
            for row, (index, label) in enumerate(zip(chosen, labels, strict=True))
        ]

    def _falls(self, place: int, chosen: Sequence[int]) -> list[Fall | None]:
        """Return how a run lost each of the chosen samples."""
        attempts = self.attempts[place]
        last = attempts[attempts["index"].isin(chosen)].drop_duplicates("index", keep="last")
        steps = {
            int(row["index"]): row["iteration"]
            for row in last.to_dict("records")
            if row["outcome"] == "broken"
        }
        samples = self.samples[place].loc[list(chosen)].to_dict("records")
        stands = self.standing.loc[list(chosen), place].tolist()
        return [
            None if stand else _fall(self.runs[place], sample, steps.get(index))
            for index, sample, stand in zip(chosen, samples, stands, strict=True)
        ]

    def _counts(self, first: int, second: int) -> PairedCounts:
        one, two = (self.standing[place].to_numpy(bool) for place in (first, second))
        return PairedCounts(
            both=int((one & two).sum()),
            only_first=int((one & ~two).sum()),
            only_second=int((two & ~one).sum()),
            neither=int((~one & ~two).sum()),
        )


def compare_runs(store: Store, runs: Sequence[Summary]) -> RunComparison:
    """Compare complete runs of a store on the samples that all of them evaluated.

    Raises:
        InputError: fewer than two runs or more than `MOST_RUNS`, one run twice, another data set or
            threat model, no shared sample, a sweep, or a damaged table.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise InputError(f"expected 2 to {MOST_RUNS} runs to compare, got {len(runs)}")
    if len({run.run for run in runs}) < len(runs):
        names = ", ".join(f"{run.manifest.candidate}@{run.run}" for run in runs)
        raise InputError(f"expected different runs, got one of them twice: {names}")
    folders = [store.folder(run.manifest) for run in runs]
    tables = [folder.samples() for folder in folders]
    standing = standing_together(
        [run.manifest for run in runs],
        [standing_samples(run, table) for run, table in zip(runs, tables, strict=True)],
    )
    attempts = [folder.attempts() for folder in folders]
    return RunComparison(
        runs=tuple(runs),
        samples=tuple(table.set_index("index").loc[standing.index] for table in tables),
        attempts=tuple(table[table["index"].isin(standing.index)] for table in attempts),
        standing=standing,
    )


def standing_samples(summary: Summary, samples: pd.DataFrame) -> pd.DataFrame:
    """Return `label` and `standing`, whether a sample survived in a run, by the samples' index.

    It survived if no attack broke it; in a certification, if it is right with a radius of at least
    the threat model's.

    Args:
        samples: the run's table.

    Raises:
        InputError: the run is a sweep.
    """
    if isinstance(summary, SweepSummary):
        raise InputError(
            "a sweep cannot be compared, since each sample has a result at each weight; evaluate "
            "its mixes"
        )
    samples = samples.set_index("index")
    if isinstance(summary, CertifiedSummary):
        eps = summary.manifest.threat_model.eps
        standing = (samples["prediction"] == samples["label"]) & (samples["radius"] >= eps)
    else:
        standing = samples["robust"].astype(bool)
    return pd.DataFrame({"label": samples["label"], "standing": standing.astype(bool)})


def standing_together(
    manifests: Sequence[Manifest], tables: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Return `label` and each run's `standing`, in columns 0, 1, ..., on the shared samples.

    Args:
        manifests: of the runs.
        tables: of `standing_samples`, one a run.

    Raises:
        InputError: another data set or threat model, no shared sample, or other labels.
    """
    first = manifests[0]
    for other in manifests[1:]:
        one, two = first.dataset, other.dataset
        if (one.name, one.size) != (two.name, two.size):
            raise InputError(f"expected runs on one data set, got {one.name} and {two.name}")
        if first.threat_model != other.threat_model:
            raise InputError(
                "expected runs under one threat model, got "
                f"{threat_model(first.threat_model)} and {threat_model(other.threat_model)}"
            )
        known = named_datasets().get(one.name)
        # With preprocessing of their own, candidates see other pixels of the same images.
        if known is not None and known.preprocessed:
            continue
        if first.selection == other.selection and one.sha256 != two.sha256:
            raise InputError(
                f"expected runs on the same samples, got other images or labels in {one.name}: "
                f"SHA-256 {one.sha256[:16]}... and {two.sha256[:16]}..."
            )
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared.intersection(table.index)
    if shared.empty:
        raise InputError("expected runs with samples in common, got none")
    shared = shared.sort_values()
    labels = [table.loc[shared, "label"] for table in tables]
    if any(not (labels[0] == each).all() for each in labels[1:]):
        raise InputError(
            f"expected runs on the same samples, got other labels in {first.dataset.name}"
        )
    together = pd.DataFrame({"label": labels[0]})
    for place, table in enumerate(tables):
        together[place] = table.loc[shared, "standing"]
    return together


def clean_accuracy(summary: Summary, samples: pd.DataFrame) -> float:
    """Return the share of samples that are right without an attack; in a certification, by votes.

    Args:
        samples: rows of the run's table.
    """
    if isinstance(summary, CertifiedSummary):
        return float((samples["prediction"] == samples["label"]).mean())
    return float(samples["clean_correct"].mean())


def protocol_text(manifest: Manifest) -> str:
    """Return a run's protocol, with what the run changed of it beside samples and radius.

    An imported run has none: its kind stands in its place.
    """
    changed = {
        name: value
        for name, value in manifest.overrides.items()
        if name not in CHOICE_OF_SAMPLES and name != "eps"
    }
    settings = [f"{name} = {value}" for name, value in flatten(changed)]
    imported = kind_named(manifest.kind).is_imported
    return ", ".join(
        [manifest.kind.replace("-", " ") if imported else manifest.protocol, *settings]
    )


def comparison_notices(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """Return what the reader of a comparison of these runs must know, one sentence each."""
    certify = {kind_named(each.kind).certifies for each in manifests}
    if len(certify) > 1:
        return (
            "Attacks and certificates are compared: a sample that survives in a certification is "
            "certified, one that survives attacks is not broken so far.",
        )
    protocols = sorted({protocol_text(each) for each in manifests})
    if len(protocols) > 1 and certify == {False}:
        return (
            f"The runs were made by different attacks ({'; '.join(protocols)}), so a part of the "
            "difference may be the attacks'.",
        )
    return ()


def passes_until_broken(comparison: RunComparison, place: int) -> tuple[FloatArray, float]:
    """Return the attack passes after which samples fell, ascending, and the most passes of any.

    A pass is a call of the network on an image; a gradient counts as one more. Samples that are
    wrong without attack fell after 0 passes; those that survived are not among them.
    """
    attempts = comparison.attempts[place]
    spent = (attempts["forward_passes"] + attempts["backward_passes"]).fillna(0)
    total = spent.groupby(attempts["index"]).sum()
    standing = comparison.standing[place]
    fallen = standing.index[~standing.to_numpy(bool)]
    # An attempt ends where the sample breaks, and no attack follows.
    passes = total.reindex(fallen, fill_value=0.0).to_numpy(np.float64)
    return np.sort(passes), float(total.max()) if len(total) else 0.0


def _fall(run: Summary, sample: Mapping[Hashable, Any], step: object) -> Fall:
    if isinstance(run, CertifiedSummary):
        predicted = int(sample["prediction"])
        if predicted < 0:
            return Fall("abstained")
        if predicted != sample["label"]:
            return Fall("wrong", prediction=predicted)
        return Fall(f"certified to radius {float(sample['radius']):.3f} only")
    if not bool(sample["clean_correct"]):
        return Fall("wrong without attack", prediction=_known(sample["clean_prediction"]))
    if pd.isna(sample["broken_by"]):
        return Fall("the candidate failed")
    prediction = _known(sample["adversarial_prediction"])
    return Fall(f"broken by {sample['broken_by']}", _known(step), prediction)


def _known(value: Any) -> int | None:
    return None if value is None or pd.isna(value) or int(value) < 0 else int(value)
