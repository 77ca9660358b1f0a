"""Import the code that submissions bring, as modules under names of their own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = "bench_submission"
"""Begins the names of the packages that submissions' folders are."""


def import_file(folder: Path, stem: str, content: str) -> ModuleType:
    """Import `<folder>/<stem>.py` as a part of a package that the folder is.

    Its relative imports find the folder's other files. The package is named for the folder and
    what its files hold: other folders have modules of their own, and so has a changed one, since
    its code may have read any of the files.

    Args:
        content: digest of the folder's files.

    Raises:
        BaseException: whatever the code raises; nothing of the package is then kept.
    """
    package = f"{PACKAGE}_{_short_digest(str(folder.resolve()), content)}"
    name = f"{package}.{stem}"
    # Architecture and surrogate may be of one file: they then share its classes.
    if name in sys.modules:
        return sys.modules[name]
    if package not in sys.modules:
        package_spec = ModuleSpec(package, None, is_package=True)
        package_spec.submodule_search_locations = [str(folder.resolve())]
        sys.modules[package] = importlib.util.module_from_spec(package_spec)
    spec = importlib.util.spec_from_file_location(name, folder / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    importlib.invalidate_caches()  # the files may be younger than what Python knows of the folder
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for each in [key for key in sys.modules if key == package or key.startswith(f"{package}.")]:
            del sys.modules[each]
        raise
    return module


def _short_digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
