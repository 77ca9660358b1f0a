"""From what a user writes after --candidate to candidates."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import platformdirs
from torch import nn

import bench
from bench.candidates.bases import MixSource
from bench.candidates.candidate import (
    Availability,
    Candidate,
    CandidateReference,
)
from bench.candidates.identity import digest, package_digest, state_of
from bench.candidates.named.functions import FunctionSource
from bench.candidates.named.model_files import ModelFileSource, is_model_file
from bench.candidates.named.timm_models import TimmSource
from bench.candidates.named.torchvision_models import TorchvisionSource
from bench.candidates.named.transformers_models import TransformersSource
from bench.candidates.sources import (
    CandidateSource,
    Search,
    find,
    has_prefix,
    register_source,
    sources,
    sources_of,
    unknown,
)
from bench.candidates.submission import FILE, Submission, inside, read_submission
from bench.candidates.submission_reference import SubmissionReference
from bench.candidates.zoo import ZooSource
from bench.errors import InputError
from bench.modules import in_eval_mode
from bench.suites import Suite, read_suite, suite_names

ENTRY_POINT_GROUP = "bench.candidates"


@dataclass(frozen=True)
class EntryPointReference:
    """A third party's candidate: a function that returns an nn.Module or a `Candidate`."""

    entry_point: EntryPoint

    @property
    def name(self) -> str:
        """The entry point's name."""
        return self.entry_point.name

    @property
    def norms(self) -> frozenset[str]:
        """Unknown."""
        return frozenset()

    def availability(self) -> Availability:
        """Return that it is installed; what its function fetches is its own affair."""
        return Availability(here=True)

    def load(self) -> Candidate:
        """Call the function.

        Raises:
            InputError: it returns something else.
        """
        made = self.entry_point.load()()
        files = package_digest(self.entry_point)
        if isinstance(made, Candidate):
            beside = ("surrogate", "voter", "preprocessing")
            state = state_of(made.module, {each: getattr(made, each) for each in beside})
            definition = [made.definition_sha256, files.sha256, state.sha256]
            return replace(
                made,
                definition_sha256=digest(definition),
                unidentified=(*made.unidentified, *files.unread, *state.unidentified),
            )
        if not isinstance(made, nn.Module):
            raise InputError(
                f"entry point {self.entry_point.value}: expected an nn.Module or a Candidate, got "
                f"{type(made).__name__}"
            )
        distribution = self.entry_point.dist
        version = f"{distribution.name} {distribution.version}" if distribution else ""
        state = state_of(in_eval_mode(made))
        return Candidate(
            name=self.name,
            module=made,
            weights_sha256={"weights": state.sha256},
            definition_sha256=digest([self.entry_point.value, version, files.sha256]),
            unidentified=(*files.unread, *state.unidentified),
        )


def default_model_dir() -> Path:
    """Return where downloaded weights are kept unless the user says otherwise."""
    return platformdirs.user_cache_path("tradeoff-bench") / "models"


def submissions_dir() -> Path:
    """Return the folder of the shipped submissions, beside the package or inside it."""
    package = Path(bench.__file__).parent
    installed = package / "submissions"
    return installed if installed.is_dir() else package.parent / "submissions"


def shipped_submissions() -> dict[str, Path]:
    """Return the folders of the shipped submissions by name."""
    return {path.parent.name: path.parent for path in sorted(submissions_dir().glob(f"*/{FILE}"))}


def third_party() -> dict[str, EntryPoint]:
    """Return the entry points of the group bench.candidates by name."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


class SubmissionSource(CandidateSource):
    """Finds the shipped submissions by name or pattern, and users' own by their folders."""

    title = "submission"

    def find(self, name: str, search: Search) -> list[SubmissionReference]:
        """Return the submissions; a pattern takes those for the search's data set.

        Raises:
            InputError: a submission that is named is damaged, or for another data set.
        """
        if is_model_file(name):
            return []
        if "/" in name or (Path(name).is_dir() and (Path(name) / FILE).is_file()):
            return [_submission(Path(name), replace(search, trust_code=True))]
        shipped = shipped_submissions()
        return [
            _submission(shipped[match], search)
            for match in fnmatch.filter(shipped, name)
            if match == name or read_submission(shipped[match]).dataset == search.dataset
        ]

    def names(self, search: Search) -> Sequence[str]:
        """Return the names of the shipped submissions."""
        return list(shipped_submissions())

    def listed(self, suites: Sequence[Suite]) -> Mapping[str, list[str]]:
        """Return the shipped submissions with the suites of their data set."""
        found = {}
        for name, folder in shipped_submissions().items():
            dataset = read_submission(folder).dataset
            found[name] = [suite.name for suite in suites if suite.data.label == dataset]
        return found


class EntryPointSource(CandidateSource):
    """Finds what other packages offer as entry points of the group `bench.candidates`."""

    title = "third party"

    def find(self, name: str, search: Search) -> list[EntryPointReference]:
        """Return the entry points of that name or pattern."""
        others = third_party()
        return [EntryPointReference(others[match]) for match in fnmatch.filter(others, name)]

    def names(self, search: Search) -> Sequence[str]:
        """Return the names of all entry points."""
        return list(third_party())

    def listed(self, suites: Sequence[Suite]) -> Mapping[str, list[str]]:
        """Return the names of all entry points; which suites they fit is not known."""
        return {name: [] for name in third_party()}


for _source in (
    SubmissionSource(),
    EntryPointSource(),
    ModelFileSource(),
    ZooSource(),
    TimmSource(),
    TorchvisionSource(),
    TransformersSource(),
    FunctionSource(),
    MixSource(),
):
    register_source(_source)


def find_candidates(
    names: Iterable[str], suite: Suite, model_dir: Path | None = None, trust_code: bool = False
) -> list[CandidateReference]:
    """Return the candidates that a user asks for.

    Args:
        names: submission names, paths of folders with a submission.yaml, third-party names,
            `robustbench:<model id>`, or patterns of these; `timm:<name>`, `torchvision:<name>`,
            `hf:<organization>/<name>`, `python:<module>:<function>`, or the path of a model file;
            a mix of two of them as `mix:accurate=A,robust=B,alpha=0.7`; names of any other source
            that is registered.
        trust_code: whether Python code of submissions may run that are not named by their path.

    Raises:
        InputError: a name that nothing answers to (the nearest ones are given), a submission for
            another data set, or two candidates of one name.
    """
    search = Search(
        suite=suite.name,
        dataset=suite.data.label,
        norm=suite.threat_model.norm,
        model_dir=model_dir or default_model_dir(),
        trust_code=trust_code,
    )
    found: dict[str, CandidateReference] = {}
    for name in names:
        for reference in find(name, search):
            first = found.setdefault(reference.name, reference)
            if _origin(first) != _origin(reference):
                raise InputError(
                    f"--candidate: expected a name for each candidate, got {reference.name!r} for "
                    f"{_origin(first)} and {_origin(reference)}; change field name of one"
                )
    return list(found.values())


def is_known(name: str) -> bool:
    """Return whether a name alone finds a candidate; a user's own folder is named by its path."""
    return has_prefix(name) or any(name in source.listed(()) for source in sources_of(name))


def list_candidates(suites: Sequence[Suite]) -> list[tuple[str, str, list[str]]]:
    """Return name, source and fitting suites of all candidates that can be listed."""
    return [
        (name, source.title, fitting)
        for source in sources()
        for name, fitting in source.listed(suites).items()
    ]


def find_candidate(
    name: str, suite: Suite, model_dir: Path | None = None, trust_code: bool = False
) -> CandidateReference:
    """Return the one candidate that a user asks for; arguments as of `find_candidates`.

    Raises:
        InputError: a name that nothing answers to, or a pattern that several do.
    """
    found = find_candidates([name], suite, model_dir, trust_code)
    if len(found) != 1:
        names = ", ".join(reference.name for reference in found)
        raise InputError(f"--candidate: expected one candidate, got {len(found)}: {names}")
    return found[0]


def _origin(reference: CandidateReference) -> str:
    """Return where a candidate comes from: two references may mean the same one."""
    if isinstance(reference, SubmissionReference):
        return str(reference.folder.resolve())
    return f"{type(reference).__name__} {reference.name}"


def _submission(folder: Path, search: Search) -> SubmissionReference:
    submission = read_submission(folder)
    if submission.dataset != search.dataset:
        raise InputError(_of_another_data_set(folder, submission, search))
    find_base = partial(_find_base, search=search)
    return SubmissionReference(folder, submission, search.trust_code, search.model_dir, find_base)


def _of_another_data_set(folder: Path, submission: Submission, search: Search) -> str:
    """Return what to do with a submission that is for another data set than the suite's."""
    theirs = submission.dataset
    is_shipped = shipped_submissions().get(submission.name) == folder
    origin = "" if is_shipped else f" (field dataset of {folder / FILE})"
    suites = [read_suite(name) for name in suite_names()]
    # Those of the norm that was asked for come first.
    fitting = sorted(
        (each for each in suites if each.data.label == theirs),
        key=lambda suite: suite.threat_model.norm != search.norm,
    )
    if fitting:
        advice = f"use {' or '.join(suite.name for suite in fitting)}"
    else:
        known = ", ".join(sorted({suite.data.label for suite in suites}))
        advice = f"no suite that comes with bench has {theirs}, they have {known}"
    return (
        f"candidate {submission.name} is for {theirs}{origin}, suite {search.suite} has "
        f"{search.dataset}; {advice}"
    )


def _find_base(
    name: str, mix: SubmissionReference, field: str, *, search: Search
) -> CandidateReference:
    """Return the base that a submission names: a folder inside its own, or of another source.

    Raises:
        InputError: file, field, and what is wrong with it.
    """
    origin = f"{mix.folder / FILE}: field {field}"
    shipped = shipped_submissions()
    is_path = name.startswith(("./", "../")) or ("/" in name and not has_prefix(name))
    if name not in shipped and not is_path:
        return _find_elsewhere(name, mix, origin, search)
    folder = shipped[name] if name in shipped else inside(mix.folder, name, field)
    if not (folder / FILE).is_file():
        raise InputError(f"{origin}: expected a folder with a {FILE}, found none in {folder}")
    ancestors = (*mix.ancestors, mix.folder.resolve())
    if folder.resolve() in ancestors:
        raise InputError(f"{origin}: {name!r} is this mix itself, or is made of it; name another")
    submission = read_submission(folder)
    if submission.dataset != mix.submission.dataset:
        raise InputError(
            f"{origin}: expected a candidate for {mix.submission.dataset}, got {name!r} for "
            f"{submission.dataset}"
        )
    return SubmissionReference(
        folder, submission, mix.trust_code, mix.model_dir, mix.find_base, ancestors
    )


def _find_elsewhere(
    name: str, mix: SubmissionReference, origin: str, search: Search
) -> CandidateReference:
    """Return a base that is no submission."""
    asked = [
        source
        for source in sources_of(name)
        if source.gives_bases and not isinstance(source, SubmissionSource)
    ]
    search = replace(
        search, dataset=mix.submission.dataset, norm=min(mix.norms, default=search.norm)
    )
    try:
        found = [
            each for source in asked for each in source.find(name, search) if each.name == name
        ]
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
    if not found:
        known = [other for source in sources_of(name) for other in source.names(search)]
        raise InputError(f"{origin}: {unknown(name, known)}")
    return found[0]
