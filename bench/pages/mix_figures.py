"""The figures of a suite's mixes, from the store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from bench.pages.distribution_plot import alpha_plot, margin_plot
from bench.pages.mix_plot import mix_plot
from bench.pages.mixes import Family, families, read_mix_samples
from bench.pages.svg import for_both_widths
from bench.store import Store


@dataclass(frozen=True)
class MixFigures:
    """The figures of a family of mixes, as <svg> elements.

    Attributes:
        tradeoff: robust against clean accuracy along the weight; None if there is no curve or base.
        alphas: name of each adaptive mix, and the distribution of its weights.
        margins: margins of the bases, with the mix that was attacked; None: not recorded.
    """

    family: Family
    tradeoff: Markup | None
    alphas: tuple[tuple[str, Markup], ...]
    margins: tuple[str, Markup] | None

    @property
    def samples(self) -> int:
        """How many each of the runs has."""
        family = self.family
        return (*family.adaptive, *family.bent, *family.fixed, *family.sweeps)[0].n_examples


def mix_figures(store: Store, suite: str) -> list[MixFigures]:
    """Return the figures of all families of a suite's readable runs."""
    runs = [run for run in store.readable_summaries() if run.manifest.suite == suite]
    return [_figures(store, each, f"mix-{place}") for place, each in enumerate(families(runs))]


def _figures(store: Store, family: Family, identifier: str) -> MixFigures:
    alphas = []
    margins = None
    for place, run in enumerate((*family.adaptive, *reversed(family.fixed))):
        is_adaptive = place < len(family.adaptive)
        if not is_adaptive and margins is not None:
            break
        samples = read_mix_samples(store, run)
        if samples is None:
            continue
        if is_adaptive:
            drawn = for_both_widths(partial(alpha_plot, samples), f"{identifier}-alpha-{place}")
            alphas.append((samples.candidate, drawn))
        if margins is None:
            draw = partial(margin_plot, samples, family.names)
            margins = (samples.candidate, for_both_widths(draw, f"{identifier}-margins"))
    tradeoff = for_both_widths(partial(mix_plot, family), identifier) if family.has_curve else None
    return MixFigures(family, tradeoff, tuple(alphas), margins)
