"""Results in other formats: RobustBench's files, and tables for papers."""

from bench.export.robustbench import model_info, new_model_form, write_submission
from bench.export.tables import TABLES, Row, leaderboard_rows

__all__ = [
    "TABLES",
    "Row",
    "leaderboard_rows",
    "model_info",
    "new_model_form",
    "write_submission",
]
