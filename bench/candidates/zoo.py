"""RobustBench's model zoo: candidates named `robustbench:<model id>`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import robustbench
from bench.candidates.candidate import Availability, Candidate, Information, state_sha256

PREFIX = "robustbench:"


@dataclass(frozen=True)
class ZooReference:
    """A model of RobustBench's zoo, for one data set and threat model."""

    model_id: str
    dataset: str
    norm: str
    model_dir: Path

    @property
    def name(self) -> str:
        """robustbench:<model id>."""
        return PREFIX + self.model_id

    def availability(self) -> Availability:
        """Whether the checkpoint is in the model folder; else how large it is, as float32."""
        missing = robustbench.missing_checkpoints(
            self.model_id, self.dataset, self.norm, self.model_dir
        )
        if not missing:
            return Availability(here=True)
        size = robustbench.checkpoint_megabytes(self.model_id, self.dataset, self.norm)
        note = "size unknown" if size is None else f"about {size:,.0f} MB"
        return Availability(here=False, note=f"weights to download, {note}")

    def load(self) -> Candidate:
        """Load the model through RobustBench's own loader.

        Raises:
            Unavailable: a checkpoint cannot be downloaded or read.
        """
        module = robustbench.load_zoo_model(self.model_id, self.dataset, self.norm, self.model_dir)
        return Candidate(
            name=self.name,
            module=module.eval(),
            weights_sha256={"weights": state_sha256(module)},
            definition_sha256=robustbench.version(),
            information=Information(
                architecture=type(module).__name__,
                claim=self.model_id,
            ),
            preprocessing=robustbench.preprocessing(self.model_id, self.dataset, self.norm),
        )


def zoo_references(dataset: str, norm: str, model_dir: Path) -> list[ZooReference]:
    """All models of the zoo for a data set ("cifar10", ...) and a norm ("Linf", "L2"), by name."""
    return [
        ZooReference(model_id, dataset, norm, model_dir)
        for model_id in robustbench.model_ids(dataset, norm)
    ]
