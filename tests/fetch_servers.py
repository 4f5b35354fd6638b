"""Servers on loopback for tests of fetching: nginx, a hub, and a proxy that cuts connections."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

CONFIG = """
daemon off; {user} worker_processes 1; pid {top}/nginx.pid; error_log {top}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format sent '$status $body_bytes_sent $request_uri $http_range';
  access_log {top}/access.log sent;
  sendfile on; tcp_nopush on;
  client_body_temp_path {top}/b; proxy_temp_path {top}/p; fastcgi_temp_path {top}/f;
  uwsgi_temp_path {top}/u; scgi_temp_path {top}/s;
  server {{
    listen 127.0.0.1:{port}; root {root};
    location /slow/ {{ alias {root}/; limit_rate {rate}; }}
    location /no-ranges/ {{ alias {root}/; max_ranges 0; }}
    location /closed/ {{ alias {root}/; auth_basic "closed"; auth_basic_user_file {top}/users; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
  }}
}}
"""


class Nginx:
    """nginx over a folder."""

    def __init__(self, top: Path, root: Path, rate: str = "2m") -> None:
        self.top, self.root, self.port = top, root, free_port()
        root.mkdir(parents=True, exist_ok=True)
        top.mkdir(parents=True, exist_ok=True)
        (top / "users").write_text("ada:{PLAIN}secret-word\n")
        # Started by root, its workers would be nobody, who cannot look into a test's folder.
        user = "user root;" if os.geteuid() == 0 else ""
        config = CONFIG.format(top=top, root=root, port=self.port, rate=rate, user=user)
        (top / "nginx.conf").write_text(config)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self) -> int:
        """Bytes of bodies that it has sent."""
        return sum(int(line.split()[1]) for line in self.log())

    def log(self) -> list[str]:
        time.sleep(0.05)  # a request is logged when it has ended
        path = self.top / "access.log"
        return path.read_text().splitlines() if path.exists() else []

    @contextlib.contextmanager
    def running(self) -> Iterator["Nginx"]:
        assert NGINX
        command = [NGINX, "-p", str(self.top), "-c", str(self.top / "nginx.conf")]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for_port(self.port)
            yield self
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """nginx over tmp_path/served."""
    if not NGINX:
        pytest.skip("nginx is not installed: fetching is not tested against a real web server")
    with Nginx(tmp_path / "nginx", tmp_path / "served").running() as server:
        yield server


class CuttingProxy:
    """Passes connections on to a port and cuts each after so many bytes of the answer."""

    def __init__(self, port: int, cut_after: int) -> None:
        self.target, self.cut_after = port, cut_after
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for link in self.open:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self.target))
            self.open += [client, server]
            for start in (
                threading.Thread(target=self._copy, args=(client, server, None)),
                threading.Thread(target=self._copy, args=(server, client, self.cut_after)),
            ):
                start.start()
                self.threads.append(start)

    def _copy(self, origin: socket.socket, target: socket.socket, left: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := origin.recv(1 << 16 if left is None else min(1 << 16, left)):
                target.sendall(data)
                left = None if left is None else left - len(data)
                if left == 0:
                    break
        for link in (origin, target):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        if left is not None:
            origin.close()
            target.close()


@contextlib.contextmanager
def cutting_proxy(port: int, cut_after: int) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(port, cut_after)
    try:
        yield proxy
    finally:
        proxy.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may hang up
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Hub(_Server):
    """The hub's API over files in memory: revisions, pages of the tree, LFS, redirects, gates."""

    def __init__(self, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.token = token
        self.commits: list[dict[str, bytes]] = []
        self.page_size = 2
        self.seen: list[tuple[str, str | None]] = []
        """(path, Authorization) of each request."""
        self.cdn = _Server(("127.0.0.1", 0), _CdnHandler)
        self.cdn.hub = self  # type: ignore[attr-defined]
        self.signature = "signature-1"

    def push(self, files: dict[str, bytes]) -> str:
        self.commits.append(files)
        return self.sha(len(self.commits) - 1)

    def sha(self, number: int) -> str:
        return hashlib.sha1(str(number).encode()).hexdigest()

    def files_of(self, revision: str) -> dict[str, bytes] | None:
        if revision in ("main", "refs/convert/parquet") and self.commits:
            return self.commits[-1]
        by_sha = {self.sha(n): files for n, files in enumerate(self.commits)}
        return by_sha.get(revision)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Hub"]:
        threads = [threading.Thread(target=s.serve_forever, args=(0.01,)) for s in (self, self.cdn)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server in (self, self.cdn):
                server.shutdown()
                server.server_close()
            for thread in threads:
                thread.join()


LFS_BYTES = 1000
"""Files from this size on are LFS."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def answer_range(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        if not asked:
            return self.answer(200, data)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            return self.answer(416, Content_Range=f"bytes */{len(data)}")
        self.answer(206, data[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")


class _HubHandler(_Handler):
    server: Hub

    def do_GET(self) -> None:
        hub = self.server
        place = urlsplit(self.path)
        hub.seen.append((self.path, self.headers.get("Authorization")))
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, b'{"error": "gated"}', X_Error_Code="GatedRepo")
        parts = [unquote(part) for part in place.path.split("/")]
        if parts[1:5] == ["api", "datasets", "ada", "texts"]:
            files = hub.files_of(parts[6])
            if files is None:
                return self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
            if parts[5] == "revision":
                number = hub.commits.index(files)
                return self.answer(200, json.dumps({"sha": hub.sha(number)}).encode())
            return self.tree(files, place.path, "/".join(parts[7:]), parse_qs(place.query))
        if parts[1:5] == ["datasets", "ada", "texts", "resolve"]:
            name = "/".join(parts[6:])
            data = (hub.files_of(parts[5]) or {}).get(name)
            if data is None:
                return self.answer(404, X_Error_Code="EntryNotFound")
            if len(data) < LFS_BYTES:
                return self.answer_range(data)
            digest = hashlib.sha256(data).hexdigest()
            port = hub.cdn.server_address[1]
            there = f"http://127.0.0.1:{port}/{digest}?Signature={hub.signature}"
            return self.answer(302, Location=there, X_Linked_Etag=digest)
        self.answer(404, b"{}", X_Error_Code="RepoNotFound")

    def tree(
        self, files: dict[str, bytes], path: str, folder: str, query: dict[str, list[str]]
    ) -> None:
        prefix = f"{folder}/" if folder else ""
        entries: list[dict[str, object]] = []
        for name, data in sorted(files.items()):
            if not name.startswith(prefix):
                continue
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, object] = {"type": "file", "oid": git, "size": len(data), "path": name}
            if len(data) >= LFS_BYTES:
                entry["oid"] = "of the pointer"
                entry["lfs"] = {
                    "oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134
                }  # fmt: skip
            entries.append(entry)
        if not entries:
            return self.answer(404, b"{}", X_Error_Code="EntryNotFound")
        if not folder:
            entries.insert(0, {"type": "directory", "oid": "x", "size": 0, "path": "data"})
        start = int(query.get("cursor", ["0"])[0])
        page = entries[start : start + self.server.page_size]
        headers = {}
        if start + len(page) < len(entries):
            following = f"{self.server.url}{path}?recursive=true&cursor={start + len(page)}"
            headers["Link"] = f'<{following}>; rel="next"'
        self.answer(200, json.dumps(page).encode(), **headers)


class _CdnHandler(_Handler):
    def do_GET(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        hub.seen.append((f"cdn{self.path}", self.headers.get("Authorization")))
        place = urlsplit(self.path)
        if parse_qs(place.query)["Signature"] != [hub.signature]:
            return self.answer(403, b"expired")
        for files in hub.commits:
            for data in files.values():
                if hashlib.sha256(data).hexdigest() == place.path[1:]:
                    return self.answer_range(data)
        self.answer(404)


class Busy(_Server):
    """Answers with one status after the other, then with 200 and the bytes."""

    def __init__(self, data: bytes, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _BusyHandler)
        self.data, self.statuses, self.asked = data, list(statuses), 0
        self.seen: list[tuple[str, str | None]] = []
        """(address, Proxy-Authorization) of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Busy"]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class _BusyHandler(_Handler):
    server: Busy

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        if self.server.statuses:
            return self.answer(self.server.statuses.pop(0), Retry_After="0")
        self.answer_range(self.server.data)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port}")


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that repeat nowhere."""
    return hashlib.shake_256(str(seed).encode()).digest(size)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}
