"""Fetching a data set's files through torchvision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import InputError


def download(fetch: Callable[[], Any], name: str, directory: Path) -> None:
    """Download a data set into a folder, which is created if it is missing.

    Args:
        fetch: the function that downloads; its own messages are not shown.
        name: name of the data set, for the message.

    Raises:
        InputError: the download failed.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            fetch()
    except Exception as error:  # torchvision passes on any error of the network layer
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{name}: not in {directory}, and the download failed: {reason.rstrip('.')}. Put the "
            "official files there, or name their folder by --data-dir or BENCH_DATA_DIR."
        ) from error
