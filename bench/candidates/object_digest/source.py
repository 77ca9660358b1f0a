"""Find the source of a function, and the names in it."""

from __future__ import annotations

import ast
import dis
import functools
import linecache
import types


def source_of(code: types.CodeType) -> str | None:
    """Return the text of a function or of a lambda alone; None where there is none."""
    node = _node(code)
    return None if node is None else ast.get_source_segment(_file_text(code.co_filename), node)


def _node(code: types.CodeType) -> ast.expr | ast.stmt | None:
    """Return where a function stands in its file: the smallest definition around it."""
    spans = [
        ((line, column), (last_line, last_column))
        for line, last_line, column, last_column in code.co_positions()
        if line is not None
        and last_line is not None
        and column is not None
        and last_column is not None
        and (line, column) < (last_line, last_column)
    ]
    if not spans:
        return None
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    fitting = [
        node
        for node in _definitions(_file_text(code.co_filename))
        if getattr(node, "name", "<lambda>") == code.co_name
        and (node.lineno, node.col_offset) <= first
        and (node.end_lineno or 0, node.end_col_offset or 0) >= last
    ]
    return max(fitting, key=lambda node: (node.lineno, node.col_offset), default=None)


def _file_text(path: str) -> str:
    return "".join(linecache.getlines(path))


@functools.lru_cache(maxsize=32)
def _definitions(text: str) -> tuple[ast.expr | ast.stmt, ...]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # no file of Python code, such as a notebook's
        return ()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return tuple(node for node in ast.walk(tree) if isinstance(node, kinds))


def names_in(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Return the global names that a function refers to, and all names with attributes.

    Those of the functions inside it are counted too.
    """
    used = {
        str(each.argval)
        for each in dis.get_instructions(code)
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            theirs = names_in(inner)
            used, names = used | theirs[0], names | theirs[1]
    return used, names
