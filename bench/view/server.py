"""A server for one reader's browser: pages and progress, by GET and HEAD, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import logging
import os
import re
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from bench.errors import InputError
from bench.formatting import count, duration, percent
from bench.pages.addresses import INDEX
from bench.store import Store
from bench.store.unfinished import Unfinished, Watch
from bench.view.pages import WAITING, served
from bench.view.site import LiveSite

LOOPBACK = "127.0.0.1"

FRESH = 1.0
"""Seconds for which one look at the store answers all questions for progress."""

SILENT = 60.0
"""Seconds that a request may take to arrive."""

_logger = logging.getLogger(__name__)


class View(ThreadingHTTPServer):
    """Serves the site of a store.

    Args:
        store: the store, which is only read.
        address: the address or host name to listen on.
        port: 0 picks a free one, see `url`.
        every: seconds between two looks for finished runs.

    Raises:
        InputError: the address is unknown, or the port is in use.
    """

    daemon_threads = True

    def __init__(self, store: Store, address: str = LOOPBACK, port: int = 0, every: float = 5.0):
        self.store = store
        self.address = address
        self._every = every
        self._watch = Watch(store)
        self._watching = threading.Lock()
        self._seen: tuple[float, list[Unfinished]] = (-FRESH, [])
        self._stop = threading.Event()
        try:
            family, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__(place[:2], _Handler, bind_and_activate=False)  # type: ignore[arg-type]
            self.server_bind()
            self.server_activate()
        except (OSError, OverflowError) as error:
            raise InputError(
                f"{address}, port {port}: expected an address of this machine and a free port, "
                f"got: {getattr(error, 'strerror', None) or error}; choose another --port, or 0 "
                "for a free one"
            ) from error
        self.site = LiveSite(store)
        self._builder = threading.Thread(target=self._keep_fresh, daemon=True)

    def server_bind(self) -> None:
        """Bind without looking the host's name up, which may take long."""
        if os.name == "posix":  # elsewhere it would let two servers share a port
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def url(self) -> str:
        """The address of the index."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.server_port}/"

    def serve(self) -> None:
        """Build the site, and serve it until `stop` is called or Ctrl-C is pressed."""
        self.site.refresh()
        self._builder.start()
        self.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End `serve`, from another thread."""
        self.shutdown()

    def server_close(self) -> None:
        """Close the socket and remove the site."""
        self._stop.set()
        super().server_close()
        if self._builder.is_alive():
            self._builder.join(timeout=30)
        self.site.close()

    def _keep_fresh(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.site.refresh()
            except Exception:  # the site stays as it was, and the next look may succeed
                _logger.exception("the store could not be read")

    def progress(self) -> list[Unfinished]:
        """Return the unfinished runs, as they were at most `FRESH` seconds ago."""
        with self._watching:
            moment, found = self._seen
            if time.monotonic() - moment >= FRESH:
                found = self._watch.unfinished()
                self._seen = (time.monotonic(), found)
            return found

    def page(self, address: str) -> bytes | None:
        """Return a page as it is served; None if there is none."""
        content = self.site.read(address)
        if content is None:
            if not (self.site.is_empty and address == INDEX):
                return None
            content = WAITING.encode()
        return served(content.decode(errors="replace")).encode() if _is_page(address) else content

    def version(self, address: str) -> str:
        """Return a digest of the page at an address; of a missing page, that of nothing."""
        return hashlib.sha256(self.site.read(address) or b"").hexdigest()[:16]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong; a reader who has gone is no error."""
        _logger.debug("a request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: View
    server_version = "bench"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = SILENT

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if not is_own_host(self.headers.get_all("Host") or [], self.server.address):
            # Another site's name may be made to point here; its pages must read nothing.
            self._send(HTTPStatus.FORBIDDEN, b"expected this server's own address\n", with_body)
            return
        try:
            parts = urlsplit(self.path)
            path = unquote(parts.path, errors="strict").lstrip("/") or INDEX
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, b"expected an address\n", with_body)
            return
        if path == "progress":
            page = parse_qs(parts.query).get("page", [""])[0].lstrip("/") or INDEX
            state = {
                "version": self.server.version(page),
                "runs": [describe(run, time.time()) for run in self.server.progress()],
            }
            body = json.dumps(state).encode()
            self._send(HTTPStatus.OK, body, with_body, "application/json")
            return
        content = self.server.page(path)
        if content is None:
            self._send(HTTPStatus.NOT_FOUND, b"no such page\n", with_body)
            return
        self._send(HTTPStatus.OK, content, with_body, "text/html; charset=utf-8")

    def _send(
        self,
        status: HTTPStatus,
        body: bytes,
        with_body: bool,
        kind: str = "text/plain; charset=utf-8",
    ) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "frame-ancestors 'none'"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        _logger.debug(format, *arguments)


def is_own_host(headers: list[str], address: str) -> bool:
    """Return whether a request's Host header names this server.

    A page of another site can only reach this server under a name that its owner controls, so that
    addresses in numbers are let pass, and of names `localhost` and the one that is listened on.

    Args:
        headers: the values of the Host headers; there must be one.
        address: what the server listens on, as the user wrote it.
    """
    if len(headers) != 1:
        return False
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s/]+)(?::\d+)?", headers[0].strip())
    if found is None:
        return False
    host = found[1].strip("[]").rstrip(".").lower()
    if host in {"localhost", address.lower(), socket.gethostname().lower()}:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def describe(run: Unfinished, now: float) -> dict[str, str | float]:
    """Return what a page says about an unfinished run.

    Args:
        now: seconds since 1970.
    """
    manifest = run.manifest
    ago = f"last block {duration(max(0.0, now - run.newest))} ago"
    current = next((each for each in run.stages if each.done < each.total), run.stages[-1])
    texts = [f"{current.name}: {count(current.done)} of {count(current.total)} images"]
    if run.examples:
        texts.append(f"clean {percent(run.right / run.examples)}%")
        texts.append(f"{count(run.standing)} of {count(run.examples)} survive so far")
    state = {True: "running", False: "interrupted", None: "unfinished"}[run.is_written]
    return {
        "suite": manifest.suite,
        "candidate": manifest.candidate,
        "protocol": manifest.protocol,
        "run": manifest.run,
        "state": state,
        "share": round(run.share, 4),
        "text": "; ".join([*texts, f"{count(run.blocks)} blocks", ago]),
    }


def _is_page(address: str) -> bool:
    return address.endswith(".html")
