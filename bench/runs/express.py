"""An express evaluation: short attacks where they break something, at a fraction of the passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.engines import AttackTask, Engine, Trials
from bench.engines.acceleration import default_precision
from bench.engines.express import BUDGET_SHARE, ExpressEngine, arms
from bench.flags.extra import extra_flags
from bench.flags.power import attack_power
from bench.kinds.express import ExpressRecords
from bench.runs.estimate import Estimate
from bench.runs.evaluation import AttackingKind, curve_attack, known_images
from bench.runs.settings import Settings
from bench.store.manifest import Manifest
from bench.store.power import AttackPower
from bench.store.summary import ExpressSummary, Flag, Left
from bench.store.tables import Tables


class Express(ExpressRecords, AttackingKind):
    """Short attacks where they break something; the protocol's own ones where gradients mislead."""

    supported_settings = frozenset({"eps_curve", "flags", "seed_witnesses"})

    def engine(self, settings: Settings) -> Engine[AttackTask]:
        """Return the express engine, the only one that does this."""
        return ExpressEngine(settings.precision or default_precision(settings.device))

    def estimate(self, task: AttackTask) -> Estimate:
        """Return how long it will take: the budget's share of the protocol's own attacks."""
        full = super().estimate(task)
        return replace(full, high=full.low + BUDGET_SHARE * (full.high - full.low))

    def attacks(self, task: AttackTask, settings: Settings) -> list[dict[str, Any]]:
        """Return the arms, and what settings add before and after them."""
        pulled = [{"name": each.name, "parameters": dict(each.parameters)} for each in arms(task)]
        return [*known_images(settings), *pulled, *curve_attack(task)]

    def attack_power(self, task: AttackTask) -> AttackPower:
        """Return which planted weaknesses express finds."""
        return attack_power(task)

    def extra_flags(self, task: AttackTask, tables: Tables, trials: Trials | None) -> list[Flag]:
        """Return flags from attacks in other ways; what the arms broke was broken by gradients."""
        return extra_flags(task, tables, trials, [each.name for each in arms(task)])

    def summarise(
        self,
        manifest: Manifest,
        tables: Tables,
        raised: Sequence[Flag],
        record: Mapping[str, float | str],
        finished: str,
    ) -> ExpressSummary:
        """Sum up attack by attack, with what is left to break."""
        summary = super().summarise(manifest, tables, raised, record, finished)
        bounds = ("expected", "low", "high")
        counts = {key: record.get(f"express_breakable_{key}") for key in bounds}
        n = summary.n_examples
        left = {key: None if value is None else float(value) / n for key, value in counts.items()}
        return ExpressSummary(
            **{name: getattr(summary, name) for name in type(summary).model_fields},
            left=None if None in left.values() else Left.model_validate(left),
            escalated=str(record.get("express_escalated", "")),
        )
