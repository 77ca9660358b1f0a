"""The callbacks in real trainers: what is logged, kept in checkpoints, and gone on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from bench import data
from tests.monitor.conftest import small_network

NAMES = {f"robustness/{name}" for name in ("clean", "robust", "low", "high", "seconds")}


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning(package: str, monitor: bench.RobustnessMonitor, tmp_path: Path) -> None:
    lightning: Any = pytest.importorskip(package)
    from bench.monitor.lightning import RobustnessCallback

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = small_network()

        def forward(self, images: Tensor) -> Any:
            return self.network(images)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    def trainer(epochs: int, callback: Any) -> Any:
        return lightning.Trainer(
            max_epochs=epochs,
            callbacks=[callback],
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    train = data.load("digits", "train")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(train.images, train.labels), batch_size=256
    )
    callback = RobustnessCallback(monitor, lambda module, images: module.network(images))
    first = trainer(2, callback)
    first.fit(Module(), loader)
    assert set(first.callback_metrics) >= NAMES
    assert monitor.history()["epoch"].tolist() == [0, 1]
    logged = float(first.callback_metrics["robustness/robust"])
    assert logged == pytest.approx(monitor.history()["robust"].iloc[-1])

    resumed = bench.RobustnessMonitor(
        images=monitor._subset.samples.images,
        labels=monitor._subset.samples.labels,
        threat_model=bench.Linf(0.1),
    )
    checkpoint = tmp_path / "monitored.ckpt"
    first.save_checkpoint(checkpoint)
    trainer(3, RobustnessCallback(resumed)).fit(Module(), loader, ckpt_path=checkpoint)
    assert resumed.history()["epoch"].tolist() == [0, 1, 2]


class ImageClassifier(nn.Module):
    """A network with the inputs and outputs of transformers' image classifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        """Return logits, and the loss where there are labels."""
        from transformers.modeling_outputs import ImageClassifierOutput

        logits = self.network(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


def test_transformers(
    digits: tuple[Tensor, Tensor], monitor: bench.RobustnessMonitor, tmp_path: Path
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from bench.monitor.transformers import RobustnessCallback

    train = data.load("digits", "train")
    rows = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(train.images, train.labels, strict=True)
    ]

    def run(epochs: int, monitor: bench.RobustnessMonitor, resume: bool) -> Any:
        trainer = transformers.Trainer(
            model=ImageClassifier(),
            args=transformers.TrainingArguments(
                output_dir=str(tmp_path),
                num_train_epochs=epochs,
                per_device_train_batch_size=256,
                save_strategy="epoch",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=rows,
        )
        trainer.add_callback(RobustnessCallback(trainer, monitor))
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    trainer = run(2, monitor, resume=False)
    logged = [row for row in trainer.state.log_history if "robustness/robust" in row]
    assert [row["robustness/robust"] for row in logged] == monitor.history()["robust"].tolist()
    assert len(logged) == 2
    images, labels = digits
    resumed = bench.RobustnessMonitor(
        images=images, labels=labels, threat_model=bench.Linf(0.1), n_examples=64
    )
    run(3, resumed, resume=True)
    assert resumed.history()["epoch"].tolist() == [0, 1, 2]
