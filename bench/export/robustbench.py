"""A run in RobustBench's formats: the `model_info` file, and the form for a new model.

Field names and string formats are those of the files in RobustBench's repository. Accuracies are
strings in percent with two decimals, the radius is "8/255" or "0.5", and `external` is given only
if another evaluation than AutoAttack found a lower accuracy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import named_datasets
from bench.errors import InputError
from bench.formatting import percent, radius
from bench.store import safe_name
from bench.store.best_known import BestKnown
from bench.store.files import write
from bench.store.summary import AttackedSummary


@dataclass(frozen=True)
class Details:
    """What RobustBench asks for and runs do not record.

    Attributes:
        identifier: the model's id; empty: the published one, or the candidate's name.
        authors: the paper's authors; empty: those that the candidate names.
        forward_passes: number of forward passes for one prediction.
        checkpoint: where weights and code can be found.
    """

    identifier: str = ""
    authors: str = ""
    forward_passes: int = 1
    checkpoint: str = ""


def model_info(summary: AttackedSummary, joined: BestKnown, details: Details) -> dict[str, Any]:
    """Return the fields of a `model_info` file.

    Args:
        summary: a full run with standard AutoAttack's accuracy.
        joined: best-known robust accuracy on its samples.

    Raises:
        InputError: RobustBench has no leaderboard for the run.
    """
    _check(summary)
    manifest = summary.manifest
    paper = manifest.information.get("paper") or {}
    autoattack = percent(summary.autoattack_accuracy)
    fields: dict[str, Any] = {
        "link": paper.get("link", ""),
        "name": paper.get("title") or manifest.candidate,
        "authors": details.authors or paper.get("authors", ""),
        "additional_data": manifest.information.get("additional_data") is True,
        "number_forward_passes": details.forward_passes,
        "dataset": manifest.dataset.name,
        "venue": paper.get("venue") or "N/A",
        "architecture": _architecture(summary),
        "eps": radius(manifest.threat_model.eps),
        "clean_acc": percent(summary.clean_accuracy),
        "reported": autoattack,
        "autoattack_acc": autoattack,
        "unreliable": bool(summary.flags),
    }
    notes = []
    if percent(joined.robust_accuracy) != autoattack:
        fields["external"] = percent(joined.robust_accuracy)
        notes.append(f"{fields['external']}% robust accuracy is due to {_strongest(summary)}.")
    if summary.flags:
        notes.append(f"Flags: {', '.join(flag.name for flag in summary.flags)}.")
    if notes:
        fields["footnote"] = " ".join(notes)
    return fields


def new_model_form(summary: AttackedSummary, joined: BestKnown, details: Details) -> str:
    """Return RobustBench's form for a new model, filled in, as Markdown.

    Raises:
        InputError: as `model_info`.
    """
    fields = model_info(summary, joined, details)
    manifest = summary.manifest
    attacks = ", ".join(attack.name for attack in summary.attacks)
    method = (
        f"standard AutoAttack ({attacks}) on {summary.n_examples} test images, engine "
        f"{manifest.engine}, seed {manifest.seed}"
    )
    lines = [
        "# Paper Information",
        "",
        f"- **Paper Title**: {fields['name']}",
        f"- **Paper URL**: {fields['link']}",
        f"- **Paper authors**: {fields['authors']}",
        "",
        "# Leaderboard Claim(s)",
        "",
        "## Model 1",
        "",
        f"- **Architecture**: {fields['architecture']}",
        f"- **Dataset**: {fields['dataset']}",
        f"- **Threat Model**: {manifest.threat_model.norm}",
        f"- **eps**: {fields['eps']}",
        f"- **Clean accuracy**: {fields['clean_acc']}%",
        f"- **Robust accuracy**: {fields.get('external', fields['autoattack_acc'])}%",
        f"- **Additional data**: {str(fields['additional_data']).lower()}",
        f"- **Evaluation method**: {method}",
        f"- **Checkpoint and code**: {details.checkpoint}",
        "",
        "# Model Zoo",
        "",
        "- [ ] I want to add my models to the Model Zoo",
        "- [ ] I use an architecture that is not among those of the Model Zoo",
        "- [ ] I agree to release my models under MIT license, OR",
        "- [ ] under a custom license, located here:",
    ]
    return "\n".join(lines) + "\n"


def write_submission(
    summary: AttackedSummary, joined: BestKnown, details: Details, out: Path
) -> tuple[Path, Path]:
    """Write `model_info/<dataset>/<threat>/<id>.json` and the form `<id>.md` below a folder.

    Returns:
        both paths.

    Raises:
        InputError: as `model_info`, or the folder cannot be written.
    """
    manifest = summary.manifest
    claimed = manifest.information.get("claim")
    identifier = details.identifier or (claimed if isinstance(claimed, str) else "")
    name = safe_name(identifier or manifest.candidate)
    info = model_info(summary, joined, details)
    form = new_model_form(summary, joined, details)
    folder = out / "model_info" / manifest.dataset.name / manifest.threat_model.norm
    paths = (folder / f"{name}.json", out / f"{name}.md")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(paths[0], (json.dumps(info, indent=2) + "\n").encode())
        write(paths[1], form.encode())
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error.strerror}") from error
    return paths


def _check(summary: AttackedSummary) -> None:
    manifest = summary.manifest
    name = f"{manifest.suite}/{manifest.candidate}@{summary.run}"
    board = (manifest.dataset.name, manifest.threat_model.norm)
    leaderboards = [
        (dataset.robustbench, norm)
        for dataset in named_datasets().values()
        for norm in dataset.leaderboards
    ]
    if board not in leaderboards:
        known = ", ".join(f"{dataset} {norm}" for dataset, norm in leaderboards)
        raise InputError(
            f"{name}: expected a leaderboard of RobustBench ({known}), got {' '.join(board)}"
        )
    if not summary.kind.is_ranked or summary.autoattack_accuracy is None:
        raise InputError(
            f"{name}: expected a run with standard AutoAttack's accuracy, got one without"
        )
    if summary.is_variant:
        changed = ", ".join(f"{key} = {value}" for key, value in manifest.overrides.items())
        raise InputError(
            f"{name}: expected a run of the suite as defined, got a variant ({changed}), which "
            "RobustBench does not rank; run it in full"
        )


def _architecture(summary: AttackedSummary) -> str:
    """Return the architecture's name; for module:function, the name of the function."""
    return str(summary.manifest.information.get("architecture") or "N/A").rpartition(":")[2]


def _strongest(summary: AttackedSummary) -> str:
    """Name the further attacks, or other runs, that found a lower accuracy than AutoAttack."""
    beyond = [attack.name for attack in summary.attacks[4:] if attack.broken]
    return ", ".join(beyond) or "witnesses of other evaluations"
