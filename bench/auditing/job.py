"""What the stages of an audit share: the order, the time, and the records so far."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.auditing.claims import Claim
from bench.auditing.records import Isolation, Order, Records, Trouble
from bench.errors import FOREIGN_ERRORS, BenchError, raised
from bench.store import Store
from bench.store.files import write_json
from bench.suites import Suite

RECORDS = "records"
"""Folder of the audit's own runs."""
BATCH = 100
"""Images in a pass of predictions and checks."""


class Log:
    """The records so far; written as a whole whenever they change."""

    def __init__(self, path: Path, isolation: Isolation) -> None:
        self.path = path
        self.records = Records(isolation=isolation)
        self.write()

    def write(self) -> None:
        """Write the records."""
        write_json(self.path, self.records)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note a stage; what foreign code raises in it is written down, and the audit goes on."""
        self.records.stage = name
        self.write()
        try:
            yield
        except BenchError as error:
            self.trouble(name, str(error))
        except FOREIGN_ERRORS as error:
            self.trouble(name, raised(error))
        self.write()

    def trouble(self, stage: str, reason: str, is_failure: bool = True) -> None:
        """Write down that a stage failed or was left out."""
        line = " ".join(reason.split())
        self.records.troubles.append(Trouble(stage=stage, reason=line, is_failure=is_failure))


@dataclass
class Job:
    """What the stages share."""

    order: Order
    suite: Suite
    log: Log
    start: float

    @property
    def spent(self) -> float:
        """Seconds since the process began to work."""
        return time.monotonic() - self.start

    @property
    def budget(self) -> float:
        """Seconds that it has in all."""
        return self.order.budget_seconds

    @property
    def claims(self) -> list[Claim]:
        """What is claimed."""
        return [Claim(name=name, accuracy=value) for name, value in self.order.claims.items()]

    @property
    def data_dir(self) -> Path | None:
        """Folder of the data sets."""
        return None if self.order.data_dir is None else Path(self.order.data_dir)

    @property
    def store(self) -> Store:
        """The audit's own records."""
        return Store(Path(self.order.out) / RECORDS)
