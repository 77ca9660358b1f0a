"""The kinds of runs that come with the package."""

from bench.runs.certification import Certification
from bench.runs.evaluation import Evaluation
from bench.runs.imported_log import ImportedLog
from bench.runs.imported_witnesses import ImportedWitnesses
from bench.runs.sweep import Sweep
from bench.store.kinds import register_kind

for _kind in (Evaluation(), Certification(), Sweep(), ImportedLog(), ImportedWitnesses()):
    register_kind(_kind)
