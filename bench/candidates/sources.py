"""Where candidates come from: each source finds those whose names it knows.

A new source is one class and one call of `register_source`. Its candidates can then be named after
--candidate and as bases of mixes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.candidates.candidate import CandidateReference
from bench.errors import InputError
from bench.suggestion import did_you_mean
from bench.suites import Suite


@dataclass(frozen=True)
class Search:
    """What candidates are looked for.

    Attributes:
        suite: name of the suite, for messages.
        dataset: label of the data set that they must classify.
        norm: of the threat model.
        model_dir: where downloaded weights are kept.
        trust_code: whether Python code of submissions may run that are not named by their path.
    """

    suite: str
    dataset: str
    norm: str
    model_dir: Path
    trust_code: bool = False


class CandidateSource(ABC):
    """One kind of place where candidates come from.

    Attributes:
        title: for `bench list candidates`.
        prefix: how the names of its candidates begin, such as "robustbench:"; empty: they are plain
            names, which are looked up in all sources without a prefix.
        gives_bases: whether its candidates can be bases of a mix.
    """

    title: str
    prefix: str = ""
    gives_bases: bool = True

    @abstractmethod
    def find(self, name: str, search: Search) -> Sequence[CandidateReference]:
        """Return the candidates that a name or pattern means; none if it knows no such name.

        Raises:
            InputError: the name is wrong in a way that deserves a message of its own.
        """

    def takes_options(self, name: str) -> bool:
        """Return whether a name of this source may go on with options behind commas."""
        return False

    def names(self, search: Search) -> Sequence[str]:
        """Return the names that can be listed, from which messages suggest near ones."""
        return ()

    def listed(self, suites: Sequence[Suite]) -> Mapping[str, list[str]]:
        """Return the names that can be listed, each with the suites that it is known to fit."""
        return {}


_sources: list[CandidateSource] = []


def register_source(source: CandidateSource) -> None:
    """Make a source of candidates known.

    Raises:
        InputError: another source has its prefix, or one that begins alike.
    """
    for other in _sources:
        if type(other) is type(source) and other.prefix == source.prefix:
            return
        short, long = sorted((source.prefix, other.prefix), key=len)
        if short and long.startswith(short):
            raise InputError(
                f"expected a new prefix for a source of candidates, got {source.prefix!r}, which "
                f"cannot be told from {other.prefix!r}"
            )
    _sources.append(source)


def sources() -> tuple[CandidateSource, ...]:
    """Return all sources, in the order in which they were registered."""
    return tuple(_sources)


def sources_of(name: str) -> tuple[CandidateSource, ...]:
    """Return the source whose prefix a name has, or all sources of plain names."""
    prefixed = [each for each in _sources if each.prefix and name.startswith(each.prefix)]
    return tuple(prefixed or [each for each in _sources if not each.prefix])


def has_prefix(name: str) -> bool:
    """Return whether a name has the prefix of a source."""
    return any(each.prefix and name.startswith(each.prefix) for each in _sources)


def takes_options(name: str) -> bool:
    """Return whether a name may go on with options behind commas."""
    return any(each.takes_options(name) for each in sources_of(name))


def find(name: str, search: Search) -> list[CandidateReference]:
    """Return the candidates that a name or pattern means; of two of one name the first source's.

    Raises:
        InputError: no source knows the name.
    """
    found: dict[str, CandidateReference] = {}
    asked = sources_of(name)
    for source in asked:
        for reference in source.find(name, search):
            found.setdefault(reference.name, reference)
    if not found:
        raise unknown(name, [known for source in asked for known in source.names(search)])
    return list(found.values())


def unknown(name: str, known: Sequence[str]) -> InputError:
    """Return the error for a name that nothing answers to, with the nearest known ones."""
    hint = did_you_mean(name, known, cutoff=0.4) or "see `bench list candidates`"
    return InputError(f"unknown candidate {name!r}: {hint}")
