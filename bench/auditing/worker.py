"""The candidate's process: it keeps itself apart, then loads, predicts, verifies and attacks.

`python -m bench.auditing.worker ORDER` reads an order and writes records after every stage and
every round, so that what was completed stays when the process is killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(order_file: str) -> None:
    """Do what an order asks for.

    Args:
        order_file: path of the file, a `bench.auditing.records.Order`.
    """
    from bench.auditing.isolation import isolate

    # Before anything else is imported: see `isolation`.
    memory = json.loads(Path(order_file).read_text(encoding="utf-8"))["memory_bytes"]
    kept = isolate(memory)

    from bench.auditing.stages import work

    work(Path(order_file), kept)


if __name__ == "__main__":
    main(sys.argv[1])
