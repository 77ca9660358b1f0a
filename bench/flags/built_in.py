"""The flags that come with the package, in the order in which they are shown."""

from __future__ import annotations

from bench.flags import answers, attacks, gradients
from bench.flags.chance import chance_level
from bench.flags.failures import failed_indices, failed_samples
from bench.flags.finiteness import non_finite_logits, non_finite_votes
from bench.flags.normalization import missing_normalization
from bench.flags.registry import (
    Answers,
    Finished,
    register_gradient_inspection,
    register_inspection,
    register_review,
)
from bench.store.records import DRAWS_WITHOUT_CLASS
from bench.store.summary import AttackedSummary, Flag

FINITENESS_COLUMNS = {"index", "clean_prediction", "broken_by", "adversarial_prediction"}


@register_inspection
def _probabilities(given: Answers) -> Flag | None:
    return answers.probabilities(given.logits)


@register_gradient_inspection
def _zero_gradients(given: Answers) -> Flag | None:
    return gradients.zero_gradients(given.module, given.images, given.labels)


@register_gradient_inspection
def _non_finite_gradients(given: Answers) -> Flag | None:
    return gradients.non_finite_gradients(given.module, given.images, given.labels)


@register_gradient_inspection
def _vanishing_gradients(given: Answers) -> Flag | None:
    return gradients.vanishing_gradients(given.module, given.images, given.labels)


@register_gradient_inspection
def _stopped_gradients(given: Answers) -> Flag | None:
    return gradients.stopped_gradients(given.module, given.images)


@register_inspection
def _inner_gradients(given: Answers) -> Flag | None:
    return gradients.inner_gradients(given.module, given.images)


@register_inspection
def _changed_input(given: Answers) -> Flag | None:
    return answers.changed_input(given.images, given.given)


@register_inspection
def _training_mode(given: Answers) -> Flag | None:
    return answers.training_mode(given.module)


@register_inspection
def _missing_normalization(given: Answers) -> Flag | None:
    if given.may_vary or answers.training_mode(given.module) is not None:
        return None
    return missing_normalization(given.module, given.images, given.labels, given.logits)


@register_inspection
def _low_precision(given: Answers) -> Flag | None:
    return answers.low_precision(given.logits)


@register_inspection
def _inconstancy(given: Answers) -> Flag | None:
    if given.may_vary:
        return None
    repeats = answers.randomness(given.logits, given.again)
    # An answer that changes by itself also changes with its batch.
    return repeats or answers.batch_dependence(given.module, given.images, given.logits)


@register_review
def _chance_level(run: Finished) -> Flag | None:
    n = run.summary.n_examples
    return chance_level(round(run.summary.clean_accuracy * n), n, run.classes)


@register_review
def _skipped_attacks(run: Finished) -> Flag | None:
    return attacks.skipped_attacks(_skipped(run))


@register_review
def _square_beats_gradients(run: Finished) -> Flag | None:
    if not isinstance(run.summary, AttackedSummary):
        return None
    skipped = _skipped(run)
    done = [each for each in run.summary.attacks if each.name not in skipped]
    return attacks.square_beats_gradients(done, run.summary.n_examples)


@register_review
def _unconverged(run: Finished) -> Flag | None:
    if not isinstance(run.summary, AttackedSummary) or run.summary.convergence is None:
        return None
    standing = round(run.summary.robust_accuracy * run.summary.n_examples)
    return attacks.unconverged(run.summary.convergence, standing)


@register_review
def _failed_samples(run: Finished) -> Flag | None:
    return failed_samples(run.summary, run.tables)


@register_review
def _non_finite_logits(run: Finished) -> Flag | None:
    samples = run.tables.samples
    if not set(samples.columns) >= FINITENESS_COLUMNS:
        return None
    # What raised an error has no logits at all.
    failed = failed_indices(run.summary, run.tables)
    return non_finite_logits(samples[~samples["index"].isin(failed)])


@register_review
def _non_finite_votes(run: Finished) -> Flag | None:
    record = run.summary.engine_record
    return non_finite_votes(
        float(record.get(DRAWS_WITHOUT_CLASS, 0)), float(record.get("draws", 0))
    )


def _skipped(run: Finished) -> list[str]:
    attempts = run.tables.attempts
    if not {"attack", "outcome"} <= set(attempts.columns):
        return []
    return list(attempts.loc[attempts["outcome"] == "skipped", "attack"].unique())
