"""The pytest plugin: options of `pytest`, and the fixture `robustness`.

pytest imports this file wherever `bench` is installed, so it imports nothing slow.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bench.testing.robustness import Robustness

OPTIONS = {
    "bench_results_dir": "Where `robustness` keeps runs, so that an unchanged model costs nothing "
    "the next time (default: in pytest's cache).",
    "bench_data_dir": "Where `robustness` finds data sets (default: as `bench run` does).",
    "bench_device": "The device of `robustness`: auto, cpu or cuda (default: auto).",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each also as a line of pytest's configuration."""
    group = parser.getgroup("bench", "robustness of models")
    for name, text in OPTIONS.items():
        group.addoption("--" + name.replace("_", "-"), dest=name, default=None, help=text)
        parser.addini(name, text)


@pytest.fixture(scope="session")
def robustness(request: pytest.FixtureRequest) -> Robustness:
    """Return what tests ask for a model's accuracy: `robustness.at_least(model, suite, 0.45)`."""
    from bench.testing.robustness import Robustness

    config = request.config
    given = {name: config.getoption(name) or config.getini(name) or None for name in OPTIONS}
    results = given["bench_results_dir"]
    folder = config.rootpath / results if results else _cache_folder(config)
    return Robustness(folder, given["bench_data_dir"], given["bench_device"] or "auto")


def _cache_folder(config: pytest.Config) -> Path:
    """Return a folder that stays from one call of pytest to the next."""
    cache = getattr(config, "cache", None)
    if cache is None:  # pytest -p no:cacheprovider
        return config.rootpath / ".pytest_cache" / "d" / "bench"
    folder: Path = cache.mkdir("bench")
    return folder
