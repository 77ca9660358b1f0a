"""The only package that knows the files below the results folder.

A run's files are in `<results>/<suite>/<candidate>/<run>/`. They are written in this order:
`manifest.json`, one file for each block in `parts/`, then `samples.parquet`, `attempts.parquet`,
`witnesses.npz` and `run.json`. Every file appears whole: it is written under another name, synced
and renamed. A run is complete when `run.json` exists; then its `parts/` are removed.
"""

from bench.store.files import safe_name
from bench.store.run_folder import RunFolder
from bench.store.store import Store

__all__ = ["RunFolder", "Store", "safe_name"]
