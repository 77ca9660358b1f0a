"""`bench view` in a real browser, while a real run goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bench.store import Store
from bench.view.server import View

from .conftest import ATTACKED, Opened, bench_run


def test_a_run_is_seen_to_go_on_and_its_result_appears(
    tmp_path: Path, visit: Callable[..., Opened]
) -> None:
    suite = tmp_path / "few.yaml"
    suite.write_text(ATTACKED)
    with View(Store(tmp_path / "results"), every=0.5) as view:
        thread = threading.Thread(target=view.serve)
        thread.start()
        run = bench_run(tmp_path, "--suite", str(suite), "--candidate", "digits-robust")
        try:
            opened = visit(view.url)
            page = opened.page
            page.get_by_text("No finished run yet").wait_for()
            page.locator(".live .run-now").wait_for(timeout=120_000)
            assert "digits-robust" in page.locator(".live").inner_text()
            # The page turns into the index by itself when the run is finished.
            page.get_by_text("Few digits").first.wait_for(timeout=240_000)
            output, _ = run.communicate(timeout=60)
            assert run.returncode == 0, output
            page.goto(f"{view.url}few-digits.html")
            page.locator("#leaderboard-table").get_by_text("digits-robust").first.wait_for()
            assert page.locator(".live").is_hidden()
            assert opened.messages == []
            assert {each.split("/")[2] for each in opened.requests} == {view.url.split("/")[2]}
        finally:
            run.kill()
            view.stop()
            thread.join(timeout=60)
