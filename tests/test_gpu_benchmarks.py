"""The measurements on a GPU run unattended: nothing that one of them meets stops the others."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmarks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_pieces_are_halved_noted_or_gone_on_with(gpu: ModuleType, tmp_path: Path) -> None:
    cramped = "import sys; n = int(sys.argv[2]); print(n); n > 3 and sys.exit('CUDA out of memory')"
    todo = [
        gpu.Piece("halved", ("-c", cramped), ("--batch", 12)),
        gpu.Piece("full", ("-c", "import sys; sys.exit('CUDA out of memory')")),
        gpu.Piece("wrong", ("-c", "1 / 0")),
        gpu.Piece("good", ("-c", "import time; time.sleep(1); print('a table')")),
        gpu.Piece("long", ("-c", "import time; time.sleep(600)")),
    ]
    first = gpu.run_pieces(todo, tmp_path, 5.0)
    assert [each["outcome"] for each in first] == [
        "done",
        "out of memory",
        "failed with exit status 1",
        "done",
        "unfinished",
    ]
    assert first[0]["batch"] == 3
    # With a call of its own it is known to be too long; what is done is not done again.
    second = gpu.run_pieces(todo, tmp_path, 1.0)
    assert second[:4] == first[:4]
    assert second[4]["outcome"] == "took longer than a whole call"
    assert "a table" in gpu.table(second)


def test_every_piece_is_a_command_of_its_own(gpu: ModuleType) -> None:
    found = gpu.pieces("cuda")
    assert [piece.resumes for piece in found] == [False] * (len(found) - 1) + [True]
    assert len({piece.name for piece in found}) == len(found)
    assert all(Path(piece.arguments[0]).is_file() for piece in found)
