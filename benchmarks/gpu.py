"""Everything that is measured on a GPU, unattended, in short pieces.

    BENCH_DATA_DIR=... python benchmarks/gpu.py              # repeat until it says that all is done

Each call works for at most ten minutes, so that a GPU that is lent for short times will do. A piece
is a command of its own. What ends is kept in benchmarks/results/gpu/, and is not done again. What
runs out of memory is repeated with half its batch, where it has one to halve. What fails, or takes
longer than a whole call, is noted, and the others go on. At the end of each call all outputs are
put together in benchmarks/results/gpu.txt; engines.jsonl and parity.jsonl grow as ever.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.memory.out_of_memory import is_out_of_memory

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RESNET18 = "bench.candidates.architectures:pyautoattack_resnet18"
WIDE = "bench.candidates.architectures:wide_resnet:{num_classes: 10}"
LOWER = ("tf32", "bfloat16")
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Piece:
    """A command that is run on its own.

    Attributes:
        name: of its file.
        arguments: of Python.
        batch: the size that is halved when memory runs out, by its option; None: there is none.
        resumes: whether it goes on where it was stopped, so that it may take several calls.
    """

    name: str
    arguments: tuple[str, ...]
    batch: tuple[str, int] | None = None
    resumes: bool = False

    def command(self, batch: int | None) -> list[str]:
        """Return the command with a batch size."""
        sized = () if self.batch is None else (self.batch[0], str(batch or self.batch[1]))
        return [sys.executable, *self.arguments, *sized]


def pieces(device: str) -> list[Piece]:
    """Return all pieces, the most wanted first; last what may take several calls."""
    resnet18 = ("--suite", "cifar10-linf", "--architecture", RESNET18, "--eps", "0.0005")
    wide = ("--suite", "cifar10-linf", "--architecture", WIDE, "--eps", "0.0005")
    in_l2 = ("--suite", "cifar10-l2", "--architecture", RESNET18, "--eps", "0.005")

    def engines(name: str, precision: str, *more: str) -> Piece:
        given = (str(HERE / "engines.py"), "--device", device, "--precision", precision)
        return Piece(f"engines-{name}-{precision}", (*given, "--own-labels", *more))

    def certification(precision: str) -> Piece:
        given = (str(HERE / "certification.py"), "--scale", "10", "--precision", precision)
        return Piece(f"certification-{precision}", given, ("--textbook-batch", 1000))

    overhead = (str(HERE / "attack_overhead.py"), "--device", device)
    parity = (str(HERE / "parity.py"), "--device", device)
    lower = tuple(part for each in LOWER for part in ("--precision", each))
    return [
        *(engines("resnet18", each, *resnet18, "--n-examples", "2000") for each in LOWER),
        *(
            engines("wide", each, *wide, "--n-examples", "2000", "--attack", "apgd-ce")
            for each in LOWER
        ),
        engines("resnet18-l2", "tf32", *in_l2, "--n-examples", "500"),
        *(certification(each) for each in ("float32", "tf32")),
        Piece("attack-overhead", overhead, ("--batch", 1024)),
        Piece("parity", (*parity, *lower), resumes=True),
    ]


def run_pieces(todo: Sequence[Piece], folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Run what is not done yet, for so many seconds; return what is known of all, in their order.

    Args:
        todo: all pieces.
        folder: what is known of each is kept there, as JSON.
        seconds: of this call.
    """
    end = time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(todo):
        # A piece that stops in the middle did not have a whole call if others came before it.
        known = _known(folder, piece)
        is_first = all(_known(folder, each)["outcome"] != UNFINISHED for each in todo[:number])
        while known["outcome"] == UNFINISHED and (left := end - time.monotonic()) > 0:
            known = _tried(piece, known, left, is_whole_call=is_first and left > 0.9 * seconds)
            path = folder / f"{piece.name}.json"
            path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return [_known(folder, piece) for piece in todo]


def _known(folder: Path, piece: Piece) -> dict[str, Any]:
    path = folder / f"{piece.name}.json"
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known
    batch = None if piece.batch is None else piece.batch[1]
    return {"name": piece.name, "outcome": UNFINISHED, "batch": batch, "seconds": 0.0, "output": ""}


def _tried(
    piece: Piece, known: dict[str, Any], seconds: float, *, is_whole_call: bool
) -> dict[str, Any]:
    """Run a piece once; return what is known of it then."""
    start = time.monotonic()
    try:
        ended = subprocess.run(
            piece.command(known["batch"]),
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        output, code = ended.stdout, ended.returncode
    except subprocess.TimeoutExpired as expired:
        raw = expired.stdout or b""
        output, code = raw if isinstance(raw, str) else raw.decode(errors="replace"), None
    now = {**known, "seconds": round(time.monotonic() - start, 1), "output": output}
    if code is None:
        is_too_long = is_whole_call and not piece.resumes
        return {**now, "outcome": "took longer than a whole call" if is_too_long else UNFINISHED}
    if code == 0:
        return {**now, "outcome": "done"}
    if is_out_of_memory(RuntimeError(output)):
        if piece.batch is not None and known["batch"] > 1:
            return {**now, "batch": known["batch"] // 2}
        return {**now, "outcome": "out of memory"}
    return {**now, "outcome": f"failed with exit status {code}"}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the outcomes, one a line, then what each piece printed."""
    lines = [f"{each['name']:28} {each['seconds']:8.1f} s  {each['outcome']}" for each in found]
    for each in found:
        if each["output"]:
            lines += ["", f"== {each['name']} ==", each["output"].strip()]
    return "\n".join(lines) + "\n"


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--seconds", default=570.0, show_default=True, help="Of this call.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--only", multiple=True, metavar="NAME", help="Only these pieces.")
def main(seconds: float, device: str, only: tuple[str, ...]) -> None:
    """Run pieces, and write the table."""
    todo = [piece for piece in pieces(device) if not only or piece.name in only]
    found = run_pieces(todo, RESULTS / "gpu", seconds)
    text = table(found)
    (RESULTS / "gpu.txt").write_text(text, encoding="utf-8")
    click.echo(text)
    open_ones = [each["name"] for each in found if each["outcome"] == UNFINISHED]
    if open_ones:
        click.echo(f"call again for {', '.join(open_ones)}")
        sys.exit(75)
    sys.exit(any(each["outcome"] != "done" for each in found))


if __name__ == "__main__":
    main()
