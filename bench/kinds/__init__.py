"""What readers know of the kinds of runs that come with the package.

Each module holds a kind's columns, its summary and its overview, and imports no torch. The side
that makes runs of the kind is in `bench.runs`; `Kind.maker` names it.
"""

from bench.kinds.attacked import EvaluationRecords, ImportedWitnessesRecords
from bench.kinds.certified import CertificationRecords, ImportedLogRecords
from bench.kinds.express import ExpressRecords
from bench.kinds.sweep import SweepRecords
from bench.store.kinds import register_kind

for _kind in (
    EvaluationRecords(),
    ExpressRecords(),
    CertificationRecords(),
    SweepRecords(),
    ImportedLogRecords(),
    ImportedWitnessesRecords(),
):
    register_kind(_kind)
