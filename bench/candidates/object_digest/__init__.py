"""The digest of what decides a module's answers, found by walking the module itself.

`state_dict()` leaves out much of it: plain attributes, buffers that are not persistent, networks in
a plain list, hooks, thresholds in a closure. The walk takes all of these, by their content. No
memory address enters, no order that differs between processes, and no path of a submission's
folder.

Code of installed packages is known by its name: which version it had is recorded beside a run.
Other code is known by its source and by the values that it refers to.

`walk.py` holds the walk. Each other file reads one kind of object, and lists its readers in
`READERS`; `digest.py` puts these lists in order.
"""

from bench.candidates.object_digest.digest import ObjectDigest, object_digest

__all__ = ["ObjectDigest", "object_digest"]
