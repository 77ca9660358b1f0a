"""A stored run with its candidate and its samples, as commands that run the candidate need them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import options
from bench.errors import InputError
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.selection import dataset_of
from bench.store.summary import Summary
from bench.suites import load_suite

if TYPE_CHECKING:
    from bench.candidates import Candidate
    from bench.data import Dataset


REFERENCE = "SUITE/CANDIDATE[@RUN]"


@dataclass(frozen=True)
class StoredRun:
    """A run, and what made it."""

    summary: Summary
    folder: RunFolder
    candidate: Candidate
    dataset: Dataset

    @property
    def title(self) -> str:
        """SUITE/CANDIDATE@RUN."""
        manifest = self.summary.manifest
        return f"{manifest.suite}/{manifest.candidate}@{self.summary.run}"


@dataclass(frozen=True)
class RunChoice:
    """Which run, and where what made it is.

    Attributes:
        reference: SUITE/CANDIDATE[@RUN].
        results_dir: where the run is.
        suite_name: name or path of the run's suite; None: it ships.
        name: name or path of the run's candidate; None: its name alone finds it.
        architecture: of a model file.
        data_dir: of the data sets.
        model_dir: of downloaded weights.
        trust_code: whether a candidate's own code may run.
    """

    reference: str
    results_dir: Path
    suite_name: str | None = None
    name: str | None = None
    architecture: str | None = None
    data_dir: Path | None = None
    model_dir: Path | None = None
    trust_code: bool = False

    @property
    def store(self) -> Store:
        """The folder of results."""
        return Store(self.results_dir)

    def load(self, check: Callable[[Manifest], None] | None = None) -> StoredRun:
        """Load the run, its candidate and its samples.

        Args:
            check: raises for a run that the command cannot use; None: for one without witnesses.

        Raises:
            InputError: one of them is missing, or is not the run's.
        """
        from bench.candidates.named.model_files import with_architecture  # torch: slow to import
        from bench.candidates.registry import find_candidate, is_known
        from bench.runs.verify import check_kind

        summary = self.store.summary(self.reference, lambda kind: kind.has_witnesses)
        manifest = summary.manifest
        (check or check_kind)(manifest)
        folder = self.store.folder(manifest)
        suite = load_suite(self.suite_name or manifest.suite)
        if suite.name != manifest.suite:
            raise InputError(f"--suite: expected {manifest.suite}, the run's; got {suite.name}")
        try:
            (wanted,) = with_architecture((self.name or manifest.candidate,), self.architecture)
            found = find_candidate(wanted, suite, self.model_dir, self.trust_code)
        except InputError as error:
            if self.name is not None or is_known(manifest.candidate):
                raise
            raise InputError(
                f"{manifest.suite}/{manifest.candidate}@{summary.run}: made from a folder or file "
                "that a name alone does not find, or from a model in Python; name it by "
                "--candidate FOLDER or FILE, or call bench.load(...).verify(model) in Python"
            ) from error
        candidate = found.load()
        listed = folder.samples()["index"].tolist() if manifest.selection.kind == "listed" else ()
        dataset = dataset_of(manifest, suite, self.data_dir, candidate.preprocessing, listed)
        return StoredRun(summary, folder, candidate, dataset)


def chooses_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options of a `RunChoice`; the command gets it as `choice`."""

    @functools.wraps(command)
    def collecting(reference: str, **given: Any) -> None:
        (choice,) = _choices([reference], given)
        command(choice=choice, **given)

    return _with_options(collecting, click.argument("reference", metavar=REFERENCE))


def chooses_runs(command: Callable[..., None]) -> Callable[..., None]:
    """Add an argument for several runs and the options of a `RunChoice`.

    The command gets them as `choices`, a list.
    """

    @functools.wraps(command)
    def collecting(references: tuple[str, ...], **given: Any) -> None:
        choices = _choices(references, given)
        command(choices=choices, **given)

    argument = click.argument("references", metavar=f"{REFERENCE}...", nargs=-1, required=True)
    return _with_options(collecting, argument)


def _choices(references: Sequence[str], given: dict[str, Any]) -> list[RunChoice]:
    """Take the values of a `RunChoice` out of a command's, and return one for each reference."""
    names = [field.name for field in fields(RunChoice) if field.name != "reference"]
    common = {name: given.pop(name) for name in names}
    return [RunChoice(reference=reference, **common) for reference in references]


def _with_options(
    command: Callable[..., None], argument: Callable[..., Callable[..., None]]
) -> Callable[..., None]:
    added = (
        argument,
        options.suite(required=False),
        click.option(
            "--candidate",
            "name",
            help="Folder of the submission, or model file, if the run named it by its path.",
        ),
        options.architecture,
        options.results_dir,
        options.data_dir,
        options.model_dir,
        options.trust_code,
    )
    return functools.reduce(lambda decorated, add: add(decorated), reversed(added), command)
