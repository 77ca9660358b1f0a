"""The only module that knows the files under the results folder.

`<results>/<suite>/<candidate>/<run>/` holds, in the order of their writing: `manifest.json`, one
file a block in `parts/`, then `samples.parquet`, `attempts.parquet`, `witnesses.npz` and
`run.json`. Every file appears whole: it is written under another name, synced and renamed. A run is
complete when `run.json` is there; the parts are removed after it.
"""

from bench.store.files import safe_name
from bench.store.run_folder import RunFolder
from bench.store.store import Store

__all__ = ["RunFolder", "Store", "safe_name"]
