"""A finished run, as a user holds it in Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.api.comparison import Comparison, compare
from bench.api.origin import Origin
from bench.data.in_hand import PREFIX as IN_HAND
from bench.errors import InputError
from bench.formatting import accuracy_text, percent
from bench.statistics import Interval
from bench.store import RunFolder, Store
from bench.store.records import ImageArray, Witnesses
from bench.store.summary import (
    AttackedSummary,
    AttackSummary,
    Flag,
    Summary,
)
from bench.suites import load_suite

if TYPE_CHECKING:  # torch and matplotlib are slow to import, and records are read without them
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from bench.api.models import Images, Model
    from bench.api.sample import Sample
    from bench.candidates import CandidateReference
    from bench.data import Dataset
    from bench.runs.verify import Verification
    from bench.runs.verify_certificates import CertificateVerification
    from bench.suites import Suite


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """A finished run: its numbers, its records, and what can be done with them.

    Attributes:
        summary: all numbers of the run.
        folder: its files.
        origin: what it was made of.
        command: the command line that makes the same run; empty where there is none, as for a model
            that exists in Python only.
        notices: what the run said that is no error.
        reused: whether the run was complete already, so that nothing was computed.
        held: what must live as long as this object.
    """

    summary: Summary
    folder: RunFolder
    origin: Origin = field(default_factory=Origin)
    command: str = ""
    notices: tuple[str, ...] = ()
    reused: bool = False
    held: Any = None

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.summary.manifest.candidate

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.summary.manifest.suite

    @property
    def run(self) -> str:
        """The run's name: the digest of what decides its result."""
        return self.summary.run

    @property
    def path(self) -> Path:
        """The folder of the run's files."""
        return self.folder.path

    @property
    def n_examples(self) -> int:
        """How many samples were evaluated."""
        return self.summary.n_examples

    @property
    def clean_accuracy(self) -> float:
        """The share of the samples that are right without an attack, in [0, 1]."""
        return self.summary.clean_accuracy

    @property
    def robust_accuracy(self) -> float:
        """The share of the samples that no attack broke, in [0, 1].

        Of a certification it is what is certified at the threat model's radius, of a sweep what the
        best weight keeps.
        """
        return self.summary.robust_accuracy

    @property
    def interval(self) -> Interval:
        """The 95% confidence interval of the robust accuracy: `low`, `high` and its `kind`."""
        return self.summary.confidence_intervals["robust_accuracy"]

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The reasons that were found to doubt the numbers."""
        return tuple(self.summary.flags)

    @property
    def samples(self) -> pd.DataFrame:
        """The table of samples, one row each; a sweep has one a weight.

        Raises:
            InputError: the file is missing or damaged.
        """
        return self.folder.samples()

    @property
    def attempts(self) -> pd.DataFrame:
        """The table of attempts, one row for each attack on a sample.

        Raises:
            InputError: the file is missing or damaged.
        """
        return self.folder.attempts()

    @property
    def attacks(self) -> pd.DataFrame:
        """What each attack did, one row each in their order; empty where nothing attacked.

        Columns: `attempted` and `broken` samples, `accuracy_after` it, `seconds`, `forward_passes`,
        `backward_passes`.
        """
        done = self.summary.attacks if isinstance(self.summary, AttackedSummary) else []
        rows = [each.model_dump() for each in done]
        return pd.DataFrame(rows, columns=list(AttackSummary.model_fields)).set_index("name")

    @property
    def smallest(self) -> pd.DataFrame:
        """The table of smallest known perturbations, one row a sample.

        Columns: `index`; `radius`, 0 where the sample is wrong without an attack, infinite where no
        perturbation is known; `attack` that found it; `forward_passes`, `backward_passes` and
        `seconds` of the search.

        Raises:
            InputError: the run was made without `eps_curve`, or the file is damaged.
        """
        table = self.folder.smallest()
        if table is None:
            raise InputError(
                f"{self.suite}/{self.name}@{self.run}: expected a run that looked for the smallest "
                "perturbations, got one that did not; evaluate with eps_curve=True, or --eps-curve"
            )
        return table

    @property
    def eps_curve(self) -> pd.DataFrame:
        """Robust accuracy against eps, an upper bound at every radius, as a step function.

        Columns: `eps`, ascending from 0, where the accuracy falls; `robust_accuracy` from there on;
        `low` and `high`, its exact binomial 95% interval at one radius. It passes through
        `robust_accuracy` at the run's eps.

        Raises:
            InputError: as for `smallest`.
        """
        from bench.store.eps_curve import curve, falling_radii

        eps = self.summary.manifest.threat_model.eps
        steps = curve(falling_radii(self.smallest, self.folder.samples(), eps))
        return pd.DataFrame(
            {
                "eps": steps.radii,
                "robust_accuracy": steps.accuracy,
                "low": steps.low,
                "high": steps.high,
            }
        )

    def plot_eps_curve(self, *others: Evaluation, axes: Axes | None = None) -> Axes:
        """Draw robust accuracy against eps, with the curves of other runs beside it.

        Args:
            others: runs under the same norm.
            axes: where to draw; None: a new figure.

        Raises:
            InputError: another norm, or as for `smallest`.
        """
        from bench.api.plot import plot_eps_curves

        return plot_eps_curves([self, *others], axes)

    def smallest_images(self) -> tuple[Tensor, Tensor]:
        """Return the images of the smallest known perturbations, and which samples these are.

        Returns and errors are those of `adversarial_images`; here the distance is free.
        """
        return self._images_of(self.folder.smallest_images)

    def adversarial_images(self) -> tuple[Tensor, Tensor]:
        """Return the images that broke samples, and which samples these are.

        Returns:
            images (n, C, H, W) in [0, 1], float32, and indices (n,) into the data set, int64.

        Raises:
            InputError: the data are not here, are not those of the run, or a file is damaged.
        """
        return self._images_of(self.folder.witnesses)

    def sample(self, index: int) -> Sample:
        """Return one sample: its clean image, the image that broke it, and what is known of both.

        Args:
            index: its place in the data set, as in `samples`.

        Raises:
            InputError: the run has no such sample, it is a sweep, which has one for each weight, or
                the data are not here.
        """
        from bench.api.sample import sample_of

        return sample_of(self, index)

    def _images_of(
        self, read: Callable[[ImageArray, Sequence[int]], Witnesses | None]
    ) -> tuple[Tensor, Tensor]:
        """Return images of the records, read with the clean ones, and their samples."""
        import torch

        dataset = self.dataset()
        found = read(dataset.images.numpy(), dataset.indices.tolist())
        if found is None:
            return dataset.images[:0], dataset.indices[:0]
        return torch.from_numpy(found.images), torch.from_numpy(found.index)

    def dataset(self) -> Dataset:
        """Return the samples of the run.

        Raises:
            InputError: they are not here, or are not those of the run.
        """
        if self.origin.dataset is not None:
            return self.origin.dataset
        return self._dataset(self._suite(), None)

    def verify(
        self,
        model: Model | None = None,
        *,
        images: Images | None = None,
        labels: Images | None = None,
        device: str | torch.device = "auto",
        batch_size: int = 250,
    ) -> Verification | CertificateVerification:
        """Run the candidate once on each adversarial image, and attack nothing.

        For a certification, fresh votes are taken at the candidate's witnesses inside certified
        radii.

        Args:
            model: as for `bench.evaluate` or `bench.certify`; None: the one of the run.
            images, labels: those that the run was given, if it was made of images in hand; None:
                those that this object holds, or the suite's.
            device: where the model runs.
            batch_size: images in one pass.

        Returns:
            what was confirmed; `is_confirmed` says whether all of it was.

        Raises:
            InputError: another model or other data than the run's, or none that can be found.
        """
        from bench.api.conditions import usual_torch
        from bench.api.models import device_of, modules_of, suite_in_hand
        from bench.api.smoothed_reference import SmoothedReference
        from bench.api.wording import errors_in_python
        from bench.candidates.live import LiveReference, borrowed
        from bench.runs.verify import verify
        from bench.runs.verify_certificates import (
            check_verifiable,
            is_certification,
            verify_certificates,
        )

        with errors_in_python(), usual_torch():
            manifest = self.summary.manifest
            check_verifiable(manifest)
            suite = self.origin.suite
            dataset = self.origin.dataset
            if images is not None or labels is not None:
                suite = suite_in_hand(images, labels, manifest.threat_model, None)
                dataset = None
            reference = self._reference(model, suite)
            if is_certification(manifest) and isinstance(reference, LiveReference):
                sigma = float(manifest.engine_settings["sigma"])
                reference = SmoothedReference(reference, sigma)
            with borrowed(*modules_of(reference)):
                candidate = reference.load()
                if dataset is None:
                    dataset = self._dataset(suite or self._suite(), candidate.preprocessing)
                place = device_of(device, reference)
                if is_certification(manifest):
                    store = Store(self.folder.path.parents[2])
                    return verify_certificates(
                        self.folder, candidate, dataset, store, place, batch_size
                    )
                return verify(self.folder, candidate, dataset, place, batch_size)

    def compare(self, other: Evaluation) -> Comparison:
        """Compare with another run on the samples of both, by McNemar's exact test.

        Raises:
            InputError: another data set or threat model, no shared sample, or a sweep.
        """
        return compare(self, other)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the accuracy after each attack, at each certified radius, or at each weight.

        Args:
            axes: where to draw; None: a new figure.
        """
        from bench.api.plot import plot

        return plot(self, axes)

    def figures(self) -> dict[str, Figure]:
        """Return the figures that the run's page in `bench report` has, by name.

        Such as `waterfall`, `passes`, `eps-curve`, `confusion`, `reliability`; those that end in
        `-narrow` fit a column of a paper. They are matplotlib's: `figure.axes[0]`,
        `figure.savefig(...)`.
        """
        from bench.api.plot import figures

        return figures(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the run with its samples into one file, and return its path; no model is in it.

        Raises:
            InputError: the file cannot be written, or the data are not here.
        """
        from bench.api.archive import save

        return save(self, Path(path))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], suite: str | os.PathLike[str] | None = None
    ) -> Evaluation:
        """Return what `save` wrote; no code of the file is run.

        Args:
            suite: the run's, by its path, if it is one of your own and its candidate has a name.

        Raises:
            InputError: there is no such file, or it is damaged.
        """
        from bench.api.archive import load

        saved = load(Path(path))
        return cls(
            saved.folder.summary(),
            saved.folder,
            Origin(suite_with(suite, saved.folder.summary()), dataset=saved.dataset),
            saved.command,
            saved.notices,
            reused=True,
            held=saved,
        )

    def __repr__(self) -> str:
        robust = accuracy_text(self.robust_accuracy, self.interval)
        flagged = f", flags: {', '.join(each.name for each in self.flags)}" if self.flags else ""
        variant = " (variant)" if self.summary.is_variant else ""
        return (
            f"<Evaluation {self.suite}/{self.name}@{self.run}: clean "
            f"{percent(self.clean_accuracy)}%, {self.measure} {robust}, n = {self.n_examples}"
            f"{variant}{flagged}>"
        )

    def _repr_html_(self) -> str:
        from bench.api.card import card

        return card(self)

    @property
    def measure(self) -> str:
        """What the robust accuracy is: `robust`, `express`, `certified` or `attacked`."""
        return self.summary.kind.robust_label

    def _suite(self) -> Suite:
        from bench.api.models import suite_around

        manifest, held = self.summary.manifest, self.origin.dataset
        if self.origin.suite is not None:
            return self.origin.suite
        if held is not None and manifest.dataset.name.startswith(IN_HAND):
            return suite_around(held, manifest.threat_model)
        return load_suite(self.suite)

    def _dataset(self, suite: Suite, preprocessing: Any) -> Dataset:
        from bench.store.selection import dataset_of

        manifest = self.summary.manifest
        is_listed = manifest.selection.kind == "listed"
        listed = self.samples["index"].tolist() if is_listed else ()
        return dataset_of(manifest, suite, self.origin.data_dir, preprocessing, listed)

    def _reference(self, model: Model | None, suite: Suite | None) -> CandidateReference:
        """Return the candidate that is to be verified.

        Raises:
            InputError: none is given, and none is found by the name in the records.
        """
        from bench.api.models import reference_of

        if model is None and self.origin.reference is not None:
            return self.origin.reference
        named = self.name if model is None else model
        return reference_of(
            named,
            (suite or self._suite()) if isinstance(named, str | os.PathLike) else suite,
            self.name,
            model_dir=self.origin.model_dir,
            trust_code=self.origin.trust_code,
        )


def suite_with(suite: str | os.PathLike[str] | None, summary: Summary) -> Suite | None:
    """Return the suite of a run that is given by its path; None where none is given.

    Raises:
        InputError: it is another suite than the run's.
    """
    if suite is None:
        return None
    found = load_suite(os.fspath(suite))
    if found.name != summary.manifest.suite:
        raise InputError(f"suite: expected {summary.manifest.suite}, the run's; got {found.name}")
    return found
