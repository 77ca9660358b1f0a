"""From what a user writes after --candidate to candidates."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import platformdirs
from torch import nn

import bench
from bench.candidates import bases as mixes
from bench.candidates.candidate import (
    Availability,
    Candidate,
    CandidateReference,
)
from bench.candidates.form import in_eval_mode
from bench.candidates.identity import digest, package_digest, state_of
from bench.candidates.submission import FILE, SubmissionReference, inside, read_submission
from bench.candidates.zoo import PREFIX, zoo_references
from bench.errors import InputError
from bench.suites import Suite

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
        """Installed, hence here; what its function fetches is its own affair."""
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
    """Where downloaded weights are kept unless the user says otherwise."""
    return platformdirs.user_cache_path("tradeoff-bench") / "models"


def submissions_dir() -> Path:
    """The shipped submissions: beside the package in a checkout, inside it when installed."""
    package = Path(bench.__file__).parent
    installed = package / "submissions"
    return installed if installed.is_dir() else package.parent / "submissions"


def shipped_submissions() -> dict[str, Path]:
    """Folders of the shipped submissions by name."""
    return {path.parent.name: path.parent for path in sorted(submissions_dir().glob(f"*/{FILE}"))}


def third_party() -> dict[str, EntryPoint]:
    """Entry points of the group bench.candidates by name."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def find_candidates(
    names: Iterable[str], suite: Suite, model_dir: Path | None = None, trust_code: bool = False
) -> list[CandidateReference]:
    """The candidates that a user asks for.

    Args:
        names: submission names, paths of folders with a submission.yaml, third-party names,
            `robustbench:<model id>`, or patterns of these; a mix of two of them as
            `mix:accurate=A,robust=B,alpha=0.7`.
        trust_code: whether Python code of submissions may run that are not named by their path.

    Raises:
        InputError: a name that nothing answers to (the nearest ones are given), a submission for
            another data set, or two candidates of one name.
    """
    directory = model_dir or default_model_dir()
    found: dict[str, CandidateReference] = {}
    for name in names:
        for reference in _find(name, suite, directory, trust_code):
            first = found.setdefault(reference.name, reference)
            if _origin(first) != _origin(reference):
                raise InputError(
                    f"--candidate: expected a name for each candidate, got {reference.name!r} for "
                    f"{_origin(first)} and {_origin(reference)}; change field name of one"
                )
    return list(found.values())


def is_known(name: str) -> bool:
    """Whether a name alone finds a candidate; users' own folders are named by their paths."""
    if name.startswith((mixes.PREFIX, PREFIX)):
        return True
    return name in shipped_submissions() or name in third_party()


def find_candidate(
    name: str, suite: Suite, model_dir: Path | None = None, trust_code: bool = False
) -> CandidateReference:
    """The one candidate that a user asks for; arguments as of `find_candidates`.

    Raises:
        InputError: a name that nothing answers to, or a pattern that several do.
    """
    found = find_candidates([name], suite, model_dir, trust_code)
    if len(found) != 1:
        names = ", ".join(reference.name for reference in found)
        raise InputError(f"--candidate: expected one candidate, got {len(found)}: {names}")
    return found[0]


def _origin(reference: CandidateReference) -> str:
    """Where a candidate comes from: two references may mean the same one."""
    if isinstance(reference, SubmissionReference):
        return str(reference.folder.resolve())
    return f"{type(reference).__name__} {reference.name}"


def _find(name: str, suite: Suite, model_dir: Path, trust_code: bool) -> list[CandidateReference]:
    if name.startswith(mixes.PREFIX):
        return [_mix(name, suite, model_dir, trust_code)]
    if name.startswith(PREFIX):
        return _find_in_zoo(name, suite, model_dir)
    if "/" in name or (Path(name).is_dir() and (Path(name) / FILE).is_file()):
        return [_submission(Path(name), suite, model_dir, trust_code=True)]
    shipped, others = shipped_submissions(), third_party()
    matches = fnmatch.filter([*shipped, *others], name)
    if not matches:
        raise _unknown(name, [*shipped, *others])
    references: list[CandidateReference] = []
    for match in matches:
        if match in shipped:
            if match != name and read_submission(shipped[match]).dataset != suite.data.label:
                continue  # a pattern takes those that fit; a name that does not fit is an error
            references.append(_submission(shipped[match], suite, model_dir, trust_code))
        else:
            references.append(EntryPointReference(others[match]))
    return references


def _find_in_zoo(name: str, suite: Suite, model_dir: Path) -> list[CandidateReference]:
    zoo = zoo_references(suite.data.label, suite.threat_model.norm, model_dir)
    matches = [reference for reference in zoo if fnmatch.fnmatchcase(reference.name, name)]
    if not matches:
        if not zoo:
            raise InputError(
                f"candidate {name!r}: RobustBench's zoo has no models for suite {suite.name} "
                f"({suite.data.label}, {suite.threat_model.norm})"
            )
        raise _unknown(name, [reference.name for reference in zoo])
    return list(matches)


def _submission(
    folder: Path, suite: Suite, model_dir: Path, trust_code: bool
) -> SubmissionReference:
    submission = read_submission(folder)
    if submission.dataset != suite.data.label:
        raise InputError(
            f"{folder / FILE}: field dataset: expected {suite.data.label}, the data set of suite "
            f"{suite.name}; got {submission.dataset!r}"
        )
    find_base = partial(_find_base, suite=suite)
    return SubmissionReference(folder, submission, trust_code, model_dir, find_base)


def _mix(text: str, suite: Suite, model_dir: Path, trust_code: bool) -> mixes.MixReference:
    names, numbers = mixes.read_mix(text)
    bases: dict[str, CandidateReference] = {}
    for role, name in names.items():
        found = _find(name, suite, model_dir, trust_code)
        if len(found) != 1:
            raise InputError(f"{text}: {role}: expected one candidate, got {len(found)}")
        bases[role] = found[0]
    return mixes.MixReference(text, bases, numbers, suite.data.label)


def _find_base(
    name: str, mix: SubmissionReference, field: str, *, suite: Suite
) -> CandidateReference:
    """The base that a submission names: shipped, inside its folder, a third party's, the zoo's.

    Raises:
        InputError: file, field, and what is wrong with it.
    """
    origin = f"{mix.folder / FILE}: field {field}"
    if name.startswith(PREFIX):
        norm = min(mix.norms, default=suite.threat_model.norm)
        zoo = {
            each.name: each for each in zoo_references(mix.submission.dataset, norm, mix.model_dir)
        }
        if name not in zoo:
            raise InputError(f"{origin}: {_unknown(name, list(zoo))}")
        return zoo[name]
    shipped, others = shipped_submissions(), third_party()
    if name in others and name not in shipped:
        return EntryPointReference(others[name])
    if name not in shipped and not name.startswith(("./", "../")) and "/" not in name:
        raise InputError(f"{origin}: {_unknown(name, [*shipped, *others])}")
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


def _unknown(name: str, known: list[str]) -> InputError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `bench list candidates`"
    return InputError(f"unknown candidate {name!r}: {hint}")
