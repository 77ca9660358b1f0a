"""Audit a candidate: its claims, tested within a time, and one page that says what came of them.

`claims` is what is claimed, `decision` the tests, `plan` what the process is asked to do, `records`
what it writes, `isolation` and `process` how it runs apart, `worker` what it does there, `report`
and `checklist` what follows from the records, `page` how that is written. `run` is the whole.
"""
