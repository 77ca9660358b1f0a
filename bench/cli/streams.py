"""Standard output and standard error that never end a command.

A terminal or a log may lack a character, its disk may be full, and the reader of a pipe may close
it. What cannot be shown is replaced or dropped, and the command goes on: its results are the
records, not its output.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO, cast

import click

LOST_OUTPUT = 1
"""Exit code of a command that succeeded but could not write its output."""
_READER_LEFT = (errno.EPIPE, errno.ECONNRESET)


class _Lenient(io.RawIOBase):
    """A raw stream that accepts all data and drops what the stream below refuses.

    Attributes:
        lost: the error that caused data to be dropped; None if there was none.
    """

    def __init__(self, below: io.RawIOBase) -> None:
        super().__init__()
        self._below = below
        self.lost: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream below is a terminal."""
        return self._below.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream below."""
        return self._below.fileno()

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write all of the data or, from the first error on, nothing."""
        left = memoryview(data).cast("B")
        while len(left) and self.lost is None:
            try:
                left = left[self._below.write(left) or 0 :]
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Keep commands from failing because of unprintable characters or a closed output.

    Lost output is reported on standard error at the end, in one line, and turns exit code 0 into
    `LOST_OUTPUT`, unless the reader of a pipe closed it.
    """
    before = sys.stdout, sys.stderr
    out, lenient = _lenient(sys.stdout)
    error, _ = _lenient(sys.stderr)
    sys.stdout, sys.stderr = out, error
    try:
        yield
    except SystemExit as end:
        _flush(out)
        lost = None if lenient is None else lenient.lost
        if lost is not None and lost.errno not in _READER_LEFT:
            click.echo(f"error: standard output: {os.strerror(lost.errno or 0)}", err=True)
            if end.code in (None, 0):
                raise SystemExit(LOST_OUTPUT) from end
        raise
    finally:
        _flush(out)
        _flush(error)
        sys.stdout, sys.stderr = before


def _lenient(stream: TextIO) -> tuple[TextIO, _Lenient | None]:
    """Wrap a stream so that no character and no failing file below it raises."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream, None  # there is none, or a caller replaced it
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(raw, io.RawIOBase):
        stream.reconfigure(errors="replace")  # it writes to memory, and loses nothing
        return stream, None
    _flush(stream)
    lenient = _Lenient(raw)
    text = io.TextIOWrapper(
        # Python's own unbuffered streams have no buffer either.
        cast(BinaryIO, lenient)
        if raw is stream.buffer
        else io.BufferedWriter(cast(io.RawIOBase, lenient)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return text, lenient


def _flush(stream: TextIO | None) -> None:
    if stream is not None and not stream.closed:
        stream.flush()
