"""`bench view`: what it answers and refuses, its progress, and pages that follow the store."""

from __future__ import annotations

import http.client
import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.errors import InputError
from bench.store import Store
from bench.store.records import AttackBlock, Attempts, CleanResults, Witnesses
from bench.store.unfinished import LOCK_TABLE, Stage, Watch
from bench.view.server import View, is_own_host
from bench.view.site import LiveSite
from tests.pages.runs import make_manifest, save_run

N = 20


def begin(store: Store, name: str = "going") -> Path:
    """Write what a run has on disk after its first attack's first block."""
    manifest = make_manifest("digits-linf", name, N)
    folder = store.folder(manifest)
    index = np.arange(N)
    images = np.zeros((2, 1, 8, 8), np.float32)
    with folder.locked():
        folder.begin(manifest)
        clean = CleanResults(index, index, np.where(index < 18, index, 0))
        folder.append(AttackBlock(key="00-clean-00000", seconds=1.0, clean=clean))
        tried = np.arange(10)
        outcome = np.array(["broken"] * 2 + ["survived"] * 8)
        attempts = Attempts(
            tried, np.array(["apgd-ce"] * 10), outcome, tried, tried * 1.0, tried * 1.0, tried * 1.0
        )
        witnesses = Witnesses(tried[:2], np.array(["apgd-ce"] * 2), tried[:2] + 1, images)
        folder.append(
            AttackBlock(key="01-apgd-ce-00000", seconds=1.0, attempts=attempts, witnesses=witnesses)
        )
    return folder.path


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


def ask(view: View, path: str, method: str = "GET", host: str | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", view.server_port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{view.server_port}")
    connection.endheaders()
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return Answer(response.status, dict(response.getheaders()), body)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "results")
    save_run(found, make_manifest("digits-linf", "done", N), 19, [12, 11, 11, 11])
    return found


@pytest.fixture
def view(store: Store) -> Iterator[View]:
    with View(store, every=600) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield server
        server.stop()
        thread.join(timeout=30)


def test_it_serves_pages_and_nothing_else(view: View, store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret.html").write_text("secret")
    assert ask(view, "/").status == ask(view, "/digits-linf.html").status == 200
    head = ask(view, "/digits-linf.html", "HEAD")
    assert (head.status, head.body) == (200, "")
    assert int(head.headers["Content-Length"]) > 1000
    assert head.headers["Cache-Control"] == "no-store"
    assert head.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in (
        "/../secret.html",
        "/%2e%2e/%2e%2e/secret.html",
        "/digits-linf/../../secret.html",
        "//etc/passwd",
        "/digits-linf",
        "/digits-linf/",
        "/digits-linf%00.html",
        f"/{store.root}/digits-linf",
    ):
        assert ask(view, path).status == 404, path
    assert ask(view, "/%ff").status == 400
    assert ask(view, "/", "POST").status == ask(view, "/", "DELETE").status == 501


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        (["127.0.0.1:8765"], True),
        (["localhost"], True),
        (["[::1]:8765"], True),
        (["named.example"], True),
        (["evil.example:8765"], False),
        (["127.0.0.1.evil.example"], False),
        (["localhost@evil.example"], False),
        ([], False),
        (["localhost", "evil.example"], False),
        ([""], False),
    ],
)
def test_names_of_others_are_refused(headers: list[str], is_own: bool) -> None:
    assert is_own_host(headers, "named.example") is is_own


def test_a_name_that_points_here_reads_nothing(view: View) -> None:
    for path in ("/", "/progress"):
        answer = ask(view, path, host=f"evil.example:{view.server_port}")
        assert answer.status == 403
        assert "digits" not in answer.body


def test_a_served_page_allows_its_scripts_and_its_own_server_only(view: View) -> None:
    text = ask(view, "/digits-linf.html").body
    policy = re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "connect-src 'self'" in policy
    assert policy.startswith("default-src 'none'")


def test_progress_is_what_the_blocks_say_and_nothing_is_touched(view: View, store: Store) -> None:
    path = begin(store)
    (path / "parts" / "01-apgd-ce-00001.npz").write_bytes(b"half a block")
    before = {each: each.stat().st_mtime_ns for each in path.parent.rglob("*")}
    (run,) = Watch(store).unfinished()
    assert (run.examples, run.right, run.standing, run.blocks) == (20, 18, 16, 2)
    assert run.stages[0] == Stage("clean", 20, 20)
    assert run.stages[1] == Stage("apgd-ce", 10, 18)
    assert run.stages[2] == Stage("apgd-t", 0, 16)
    assert 0 < run.share < 1
    state = json.loads(ask(view, "/progress").body)
    assert [each["candidate"] for each in state["runs"]] == ["going"]
    assert (
        "apgd-ce: 10 of 18 images; clean 90.00%; 16 of 20 survive so far"
        in state["runs"][0]["text"]
    )
    assert {each: each.stat().st_mtime_ns for each in path.parent.rglob("*")} == before


@pytest.mark.skipif(not LOCK_TABLE.exists(), reason="the system does not list locks")
def test_a_run_that_a_process_writes_is_told_from_an_interrupted_one(store: Store) -> None:
    begin(store)
    watch = Watch(store)
    assert [run.is_written for run in watch.unfinished()] == [False]
    with store.folder(make_manifest("digits-linf", "going", N)).locked():
        assert [run.is_written for run in watch.unfinished()] == [True]


def test_the_site_follows_the_store(view: View, store: Store) -> None:
    first = json.loads(ask(view, "/progress?page=/digits-linf.html").body)["version"]
    assert json.loads(ask(view, "/progress?page=/digits-linf.html").body)["version"] == first
    save_run(store, make_manifest("digits-linf", "newer", N), 19, [15, 14, 14, 14])
    save_run(store, make_manifest("cifar10-linf", "other", N), 19, [15, 14, 14, 14])
    view.site.refresh()
    assert "newer" in ask(view, "/digits-linf.html").body
    assert ask(view, "/cifar10-linf.html").status == 200
    changed = json.loads(ask(view, "/progress?page=/digits-linf.html").body)["version"]
    assert changed != first
    assert not view.site.refresh()
    # A suite whose last run is gone has no page; others are taken over as they are.
    folder = store.runs("cifar10-linf")[0]
    (folder.path / "run.json").unlink()
    assert view.site.refresh()
    assert ask(view, "/cifar10-linf.html").status == 404
    assert "cifar10-linf.html" not in ask(view, "/").body
    assert json.loads(ask(view, "/progress?page=/digits-linf.html").body)["version"] == changed


@pytest.mark.parametrize("error", [InputError("broken"), KeyError("broken")])
def test_a_build_that_fails_leaves_no_folder_and_is_not_tried_again(
    store: Store, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[Path] = []

    def build_report(_: Store, folder: Path, earlier: Path | None) -> None:
        builds.append(folder)
        raise error

    monkeypatch.setattr("bench.view.site.build_report", build_report)
    with LiveSite(store) as site:
        assert [site.refresh(), site.refresh()] == [False, False]
        assert [folder.exists() for folder in builds] == [False]


def test_an_empty_store_waits_for_its_first_run(tmp_path: Path) -> None:
    with View(Store(tmp_path / "none")) as server:
        text = server.page("index.html")
        assert text is not None
        assert b"No finished run yet" in text
        assert b"connect-src 'self'" in text
        assert server.page("digits-linf.html") is None


def test_a_port_in_use_and_a_strange_address_are_said(store: Store) -> None:
    with View(store) as server:
        port = str(server.server_port)
        result = CliRunner().invoke(main, ["view", "--port", port])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: 127.0.0.1, port {port}: expected")
    with pytest.raises(InputError, match="expected an address of this machine"):
        View(store, address="no such host")
