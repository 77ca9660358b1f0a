"""Candidates that live in a folder with a `submission.yaml`: built, and their weights loaded."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from bench.candidates.bases import (
    availability_of,
    check_answers,
    check_norms,
    definitions_of,
    notes_of_bases,
    smoothed_part,
    weights_of,
)
from bench.candidates.candidate import Availability, Candidate, CandidateReference, Information
from bench.candidates.folder_digest import FolderDigest, folder_digest
from bench.candidates.foreign_code import import_file
from bench.candidates.identity import State, digest, state_of, unidentified_of
from bench.candidates.mix import as_mix
from bench.candidates.mixing_network import MixingNetwork
from bench.candidates.own_type import in_own_type
from bench.candidates.smoothed import Smoothed
from bench.candidates.submission import FILE, Submission, inside
from bench.candidates.submission_weights import checked_digest, weights_availability, weights_file
from bench.candidates.weights import load_weights
from bench.candidates.wrapped import read_outputs, wrap
from bench.data import image_shape
from bench.errors import FOREIGN_ERRORS, InputError, raised
from bench.modules import in_eval_mode

OWN_PREFIX = "bench.candidates."
CONVERSIONS = ("normalize", "resize", "interpolation", "grayscale", "input_range", "output")
"""Fields that say what the network expects of its images, and what it returns."""


class FindBase(Protocol):
    """Finds a base that a submission names."""

    def __call__(self, name: str, mix: SubmissionReference, field: str) -> CandidateReference:
        """Return the base called `name` in a field of a mix's file.

        Raises:
            InputError: nothing has that name, it is for another data set, or it is the mix itself.
        """


@dataclass(frozen=True)
class SubmissionReference:
    """A submission in `folder`.

    Attributes:
        trust_code: whether Python code in the folder may run.
        model_dir: where downloaded weights are kept.
        find_base: finds the bases of a mix.
        ancestors: folders of the mixes that this is a base of.
    """

    folder: Path
    submission: Submission
    trust_code: bool
    model_dir: Path
    find_base: FindBase | None = None
    ancestors: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The submission's name."""
        return self.submission.name

    @property
    def norms(self) -> frozenset[str]:
        """The norms of its threat models."""
        return frozenset(each.norm for each in self.submission.threat_models)

    def availability(self) -> Availability:
        """Return whether the weights are on this disk, and those of its bases."""
        of_bases = availability_of(self._bases())
        own = weights_availability(self.submission, self.model_dir)
        return own if of_bases.here else of_bases

    def fetch(self) -> None:
        """Download its own weights, if its file names an address; none of its code runs.

        Raises:
            Unavailable: the weights cannot be downloaded.
        """
        if not weights_availability(self.submission, self.model_dir).here:
            weights_file(self.folder, self.submission, self.model_dir)

    def load(self) -> Candidate:
        """Build the architecture and load its weights.

        Raises:
            InputError: code that is not trusted, an architecture that cannot be built, weights
                that are missing, differ from their digest or do not fit.
            Unavailable: the weights cannot be downloaded.
        """
        files = folder_digest(self.folder)
        bases = {role: reference.load() for role, reference in self._bases().items()}
        module = in_eval_mode(self._build(bases, files))
        own_weights, notes = self._own_weights(module, bases)
        surrogate = self._surrogate(module, files)
        module = self._converted(module)
        # Before the first pass: a module may keep something of the images that it has seen.
        state = state_of(module, {"surrogate": surrogate}, bases, self.folder)
        shape = image_shape(self.submission.dataset)
        try:
            module, given = in_own_type(module, shape)
            module, read = read_outputs(module, shape, self.submission.output)
        except InputError as error:
            raise InputError(f"{self.folder / FILE}: {error}") from error
        if own_weights is None:  # its own code made them, perhaps at random
            own_weights = {"weights": state.sha256}
        if bases:
            check_answers(module, self.submission.dataset, f"{self.folder / FILE}: field bases")
        smoothed = smoothed_part(module, bases)
        return Candidate(
            name=self.name,
            module=module,
            weights_sha256=weights_of(bases) | own_weights,
            definition_sha256=self._definition_sha256(bases, files, state),
            information=Information(
                architecture=self.submission.architecture,
                paper=self.submission.paper,
                training=self.submission.training,
                additional_data=self.submission.additional_data,
                threat_models=self.submission.threat_models,
                claim=self.submission.claim,
                weights=(*notes, *notes_of_bases(bases, "weights")),
                conversions=(*given, *read, *notes_of_bases(bases, "conversions")),
            ),
            randomized=self.submission.randomized or any(b.randomized for b in bases.values()),
            preprocessing=bases["robust"].preprocessing if bases else None,
            surrogate=surrogate,
            bases=bases,
            sigma=smoothed.sigma if smoothed else None,
            voter=smoothed.base if smoothed else None,
            unidentified=(*unidentified_of(bases), *files.unread, *state.unidentified),
        )

    def _bases(self) -> dict[str, CandidateReference]:
        if self.submission.bases is None:
            return {}
        if self.find_base is None:
            raise InputError(f"{self.folder / FILE}: field bases: find it by find_candidates")
        bases = {
            role: self.find_base(name, self, f"bases.{role}")
            for role, name in self.submission.bases.model_dump().items()
        }
        check_norms(bases, f"{self.folder / FILE}: field bases")
        return bases

    def _own_weights(
        self, module: nn.Module, bases: Mapping[str, Candidate]
    ) -> tuple[dict[str, str] | None, list[str]]:
        """Load the weights file; digests of what the bases do not bring, None without a file.

        What was read of the file comes beside them, a note each.
        """
        if self.submission.weights is not None:
            return self._load_weights(module)
        mix = as_mix(module)
        if mix is not None and mix.trained_part is not None:
            raise InputError(
                f"{self.folder / FILE}: field weights: expected the file of the "
                f"{type(mix.trained_part).__name__} that is trained beside the bases, got none; "
                "without it the mix would have random numbers"
            )
        return ({} if bases and not _adds_to(module, bases) else None), []

    def _load_weights(self, module: nn.Module) -> tuple[dict[str, str], list[str]]:
        """Load the weights file; a mix's holds what is trained beside its bases."""
        path = weights_file(self.folder, self.submission, self.model_dir)
        sha256 = checked_digest(path, self.folder, self.submission)
        mix = as_mix(module)
        if mix is None:
            return {"weights": sha256}, load_weights(module, path, self.submission.weights_key)
        if mix.trained_part is None:
            raise InputError(
                f"{self.folder / FILE}: field weights: expected none, since this mix has nothing "
                f"beside its bases; got {self.submission.weights!r}"
            )
        part = mix.trained_part

        def check(state: Mapping[str, Tensor]) -> None:
            if isinstance(part, MixingNetwork):
                try:
                    part.check_checkpoint(state)
                except InputError as error:
                    raise InputError(
                        f"{self.folder / FILE}: field architecture_args: {error} in {path}"
                    ) from error

        notes = load_weights(part, path, self.submission.weights_key, check)
        return {"mixing_network": sha256}, notes

    def _converted(self, module: nn.Module) -> nn.Module:
        """Return the network with the preprocessing that the file declares inside."""
        given = self.submission.model_dump(include=set(CONVERSIONS), exclude_defaults=True)
        given |= given.pop("normalize", None) or {}
        if not given:
            return module
        origin = f"{self.folder / FILE}: field {next(iter(given))}"
        if as_mix(module) is not None or isinstance(module, Smoothed):
            raise InputError(
                f"{origin}: cannot be used with a mix or a smoothed classifier; declare it for "
                "the base"
            )
        try:
            return wrap(module, **given)
        except InputError as error:
            raise InputError(f"{self.folder / FILE}: {error}") from error

    def _surrogate(self, module: nn.Module, files: FolderDigest) -> nn.Module | None:
        if self.submission.surrogate is None:
            return None
        build = self._function(self.submission.surrogate, "surrogate", files)
        try:
            surrogate = build(module)
        except FOREIGN_ERRORS as error:
            raise InputError(
                f"{self.folder / FILE}: field surrogate: {self._raised(error)}"
            ) from error
        if not isinstance(surrogate, nn.Module):
            raise InputError(
                f"{self.folder / FILE}: field surrogate: expected an nn.Module, got "
                f"{type(surrogate).__name__}"
            )
        return in_eval_mode(surrogate)

    def _build(self, bases: Mapping[str, Candidate], files: FolderDigest) -> nn.Module:
        build = self._function(self.submission.architecture, "architecture", files)
        arguments: dict[str, Any] = {role: base.module for role, base in bases.items()}
        arguments |= self.submission.architecture_args
        field = f"{self.folder / FILE}: field architecture"
        shape = image_shape(self.submission.dataset)
        try:
            if bases and shape and "image_shape" in inspect.signature(build).parameters:
                arguments = {"image_shape": shape} | arguments
            module = build(**arguments)
        except (TypeError, ValueError, InputError) as error:
            raise InputError(f"{field}_args: {error}") from error
        except FOREIGN_ERRORS as error:
            raise InputError(f"{field}: {self._raised(error)}") from error
        if not isinstance(module, nn.Module):
            raise InputError(f"{field}: expected an nn.Module, got {type(module).__name__}")
        return module

    def _function(self, reference: str, field: str, files: FolderDigest) -> Callable[..., Any]:
        location, _, name = reference.partition(":")
        function = getattr(self._import(location, field, files), name, None)
        if not callable(function):
            raise InputError(
                f"{self.folder / FILE}: field {field}: expected a function in {location}, got "
                f"{name!r}"
            )
        return cast(Callable[..., Any], function)

    def _import(self, location: str, field: str, files: FolderDigest) -> Any:
        if location.startswith(OWN_PREFIX):
            try:
                return importlib.import_module(location)
            except ModuleNotFoundError as error:
                raise InputError(f"{self.folder / FILE}: field {field}: {error}") from error
        if location.endswith(".py"):
            raise InputError(
                f"{self.folder / FILE}: field {field}: expected the file without its ending, "
                f"{location.removesuffix('.py')!r}; got {location!r}"
            )
        path = inside(self.folder, f"{location}.py", field)
        if not path.is_file():
            raise InputError(
                f"{self.folder / FILE}: field {field}: expected a module below "
                f"{OWN_PREFIX[:-1]} or a file {path.name} beside it, got {location!r}"
            )
        if not self.trust_code:
            raise InputError(
                f"{path}: this submission brings its own code, which runs only if you name the "
                "folder by its path or pass --trust-code"
            )
        try:
            return import_file(self.folder, location, files.sha256)
        except FOREIGN_ERRORS as error:
            raise InputError(f"{path}: {self._raised(error)}") from error

    def _raised(self, error: BaseException) -> str:
        """Return what the submission's own code raised, and how it finds its other files."""
        if not isinstance(error, ModuleNotFoundError) or not error.name:
            return raised(error)
        top = error.name.partition(".")[0]
        if not ((self.folder / f"{top}.py").is_file() or (self.folder / top).is_dir()):
            return raised(error)
        return (
            f"{raised(error)}. A submission's own files are found by relative imports: expected "
            f"`from .{error.name} import ...`"
        )

    def _definition_sha256(
        self, bases: Mapping[str, Candidate], files: FolderDigest, state: State
    ) -> str:
        content: dict[str, Any] = {
            "architecture": self.submission.architecture,
            "architecture_args": self.submission.architecture_args,
            "files": files.sha256,
            "state": state.sha256,
        }
        if bases:
            content["bases"] = definitions_of(bases)
        if self.submission.surrogate is not None:
            content["surrogate"] = self.submission.surrogate
        if self.submission.weights_key is not None:
            content["weights_key"] = self.submission.weights_key
        return digest(content)


def _adds_to(module: nn.Module, bases: Mapping[str, Candidate]) -> bool:
    """Return whether a module has parameters or buffers that are none of its bases'."""
    known = {id(tensor) for base in bases.values() for tensor in _tensors(base.module)}
    return any(id(tensor) not in known for tensor in _tensors(module))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())
