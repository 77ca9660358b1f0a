"""A real browser, and sites of real runs for it; `tox -e browser` runs these tests.

The browser is the one that BENCH_CHROMIUM names, a Chromium of the system, or Playwright's own.
Without one the tests fail. Evaluations are made anew each time, unless BENCH_BROWSER_RESULTS names
a folder that keeps them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.pages.build import build_report
from bench.store import Store
from bench.store.manifest import Selection
from bench.store.summary import Flag
from tests.pages.runs import make_manifest, save_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = ("<script>alert(1)</script>", "a/b/../c", "\N{CHICKEN}\N{SNOWMAN}", "x" * 300)

ATTACKED = """
name: few-digits
version: 1
title: Few digits
data: digits
n_examples: 24
threat_model: {norm: Linf, eps: 0.2}
protocols:
  standard: {attacks: autoattack}
candidates: [digits-standard, digits-robust, digits-mix]
"""
CERTIFIED = """
name: few-certified
version: 1
title: Few certified digits
data: digits
n_examples: 8
threat_model: {norm: L2, eps: 0.5}
protocols:
  certified:
    certification: {selection_samples: 50, noise_samples: 1000, failure_probability: 0.001}
candidates: [digits-gaussian, digits-smoothmix]
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@dataclass
class Opened:
    """A page in the browser, and what it did beside showing itself."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        pytest.fail("expected Playwright for Python; install it by `pip install -e .[browser]`")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("BENCH_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            # Chromium's own sandbox needs rights that containers withhold; the pages are ours.
            started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            pytest.fail(
                f"expected Chromium, got: {error.message.splitlines()[0]}; install Debian's "
                "`chromium`, or run `playwright install chromium`, or set BENCH_CHROMIUM"
            )
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens an address, of a file or a server, and notes messages and requests."""
    contexts = []

    def opened(address: str, width: int = 1440, **options: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        found = Opened(page)
        page.on("console", lambda message: found.messages.append(message.text))
        page.on("pageerror", lambda error: found.messages.append(str(error)))
        page.on("dialog", lambda dialog: found.messages.append(f"dialog {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith("data:") else found.requests.append(request.url)
            ),
        )
        page.goto(address)
        return found

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    try:
        import axe_playwright_python
    except ModuleNotFoundError:
        pytest.fail(
            "expected axe-playwright-python, which holds axe-core; `pip install -e .[browser]`"
        )
    path = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    if not path.is_file():
        pytest.fail(f"expected axe-core at {path}, got no file; install axe-playwright-python 0.1")
    return path.read_text(encoding="utf-8")


def bench_run(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `bench run` with the results of a folder."""
    command = [sys.executable, "-m", "bench", "run", "--results-dir", str(folder / "results")]
    command += ["--report-dir", str(folder / "reports"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


@pytest.fixture(scope="session")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Real digits runs: attacked, mixed, certified; and CIFAR-100 where its files are."""
    kept = os.environ.get("BENCH_BROWSER_RESULTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("real")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attacked.yaml").write_text(ATTACKED)
    (folder / "certified.yaml").write_text(CERTIFIED)
    store = Store(folder / "results")
    runs = {
        "few-digits": ["--suite", str(folder / "attacked.yaml")],
        "few-certified": ["--suite", str(folder / "certified.yaml"), "--protocol", "certified"],
    }
    if (Path(os.environ.get("BENCH_DATA_DIR") or "-") / "cifar-100-python").is_dir():
        few = ["--candidate", "cifar100-standard", "--n-examples", "4"]
        runs["cifar100-linf"] = ["--suite", "cifar100-linf", *few]
    for suite, arguments in runs.items():
        kept_ones = store.runs(suite)
        if kept_ones and all(run.is_complete for run in kept_ones):
            continue
        done = bench_run(folder, *arguments)
        output, _ = done.communicate(timeout=900)
        assert done.returncode == 0, output
    return store


@pytest.fixture(scope="session")
def site(real_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of real runs, with records of a full and of partial CIFAR-100 runs."""
    folder = tmp_path_factory.mktemp("site")
    store = Store(folder / "results")
    shutil.copytree(real_store.root, store.root)
    flag = Flag(
        name="zero-gradients", measured=0.5, threshold=0.01, meaning="No slope.", advice="BPDA."
    )
    information = {"claim": "Bai2023Improving_edm", "architecture": "module:Mix"}
    save_run(
        store,
        make_manifest(
            "cifar100-linf", "robustbench:Bai2023Improving_edm", 100, information=information
        ),
        85,
        [41, 40, 39, 39],
    )
    for place, name in enumerate(HOSTILE):
        manifest = make_manifest(
            "cifar100-linf", name, 100, weights_sha256={"weights": f"{place:064}"}
        )
        save_run(store, manifest, 60, [20 + place] * 4, flags=[flag] if place else [])
    part = {"overrides": {"n_examples": 20}, "selection": Selection(kind="first", n=20)}
    save_run(store, make_manifest("cifar100-linf", "few", 20, **part), 19, [19, 19, 19, 19])
    build_report(store, folder / "site")
    return folder / "site"
