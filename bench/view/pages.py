"""Pages as they are served: with the script that refreshes them, and one for an empty store."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

POLICY = "default-src 'none'; "
"""How the pages' own policy begins, which forbids every request."""

WAITING = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'none'; base-uri 'none'; form-action 'none'">
<meta name="color-scheme" content="light dark">
<title>No finished run yet · bench</title>
<style>
:root { color-scheme: light dark; --line: #8886; --surface: transparent; --accent: #1a7; }
body { font-family: system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
</style>
</head>
<body>
<main id="main">
<h1>No finished run yet</h1>
<p>This page shows what runs, and becomes the leaderboard when the first run is finished.</p>
</main>
</body>
</html>
"""


def served(page: str) -> str:
    """Return a page with the script and the style that keep it up to date.

    The page's own policy is widened by exactly these: the script's digest, and requests to the
    server that the page is from.
    """
    script, style = _file("live.js"), _file("live.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head, mark, rest = page.partition("</head>")
    head = head.replace(POLICY, f"{POLICY}connect-src 'self'; ", 1)
    if "script-src 'none'" in head:
        head = head.replace("script-src 'none'", f"script-src 'sha256-{digest}'", 1)
    else:
        head = head.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    body, end, tail = rest.rpartition("</body>")
    return f"{head}<style>{style}</style>\n{mark}{body}<script>{script}</script>\n{end}{tail}"


def _file(name: str) -> str:
    return (resources.files("bench.view") / name).read_text(encoding="utf-8")
