"""Fetch against curl, from nginx on loopback; and what a download that is killed reads twice.

    python benchmarks/fetch.py [--bytes 1_000_000_000] [--rounds 5] [--kills 10] [--json out.json]

Both write the file to one disk, in turns, curl as `curl -o`, ours as a build's task does it: over
its connections, with a journal, SHA-256 and a sync at the end. "without the sync" leaves the last
out, because curl does not wait for the disk either; --folder /dev/shm leaves the disk out for both.

Of the killed download two things are counted beyond the file's own bytes: what its processes read
again, and what nginx sent again, in which is also what lay unread in the sockets of the dead.
"""

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

from tokenmill.pipeline.fetch import web
from tokenmill.pipeline.fetch.download import download
from tokenmill.shards.files import sha256_file
from tokenmill.shards.table import table

CONFIG = """
daemon off; {user} worker_processes 1; pid {top}/nginx.pid; error_log {top}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format sent '$body_bytes_sent'; access_log {top}/access.log sent;
  sendfile on; tcp_nopush on;
  client_body_temp_path {top}/b; proxy_temp_path {top}/p; fastcgi_temp_path {top}/f;
  uwsgi_temp_path {top}/u; scgi_temp_path {top}/s;
  server {{
    listen 127.0.0.1:{port}; root {top}/served;
    location /slow/ {{ alias {top}/served/; limit_rate {rate}; }}
  }}
}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate", default="25m", help="of each connection of the killed download")
    parser.add_argument("--folder", type=Path, help="the disk to write to (default: the system's)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        fetch_and_count(arguments.child[0], Path(arguments.child[1]))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        top = Path(folder)
        server, url = start_nginx(top, arguments.rate)
        try:
            write_noise(top / "served" / "a.bin", arguments.bytes)
            rates = measure(url, top, arguments.bytes, arguments.rounds)
            killed = kill_again_and_again(url, top, arguments.bytes, arguments.kills)
        finally:
            server.terminate()
            server.wait()
    best = {name: max(values) for name, values in rates.items()}
    middle = {name: statistics.median(values) for name, values in rates.items()}
    lines = [
        (name, f"{middle[name]:,.0f}", f"{best[name]:,.0f}", f"{middle[name] / middle['curl']:.2f}")
        for name in rates
    ]
    print(table(("", "MB/s, median", "best", "of curl's median"), lines))
    again = {name: killed[name] / arguments.bytes for name in ("read_again", "sent_again")}
    print(
        f"killed {killed['kills']} times: {again['read_again']:.2%} of the bytes read again, "
        f"{again['sent_again']:.2%} sent again; "
        f"{'the right bytes' if killed['right'] else 'WRONG BYTES'}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rates": rates, "killed": killed}, indent=1) + "\n")
    return 0 if killed["right"] else 1


def measure(url: str, top: Path, size: int, rounds: int) -> dict[str, list[float]]:
    """MB/s of each round; one more comes first and is thrown away."""
    ways = {
        "curl": lambda: subprocess.run(
            ["curl", "--silent", "--output", str(top / "curl"), f"{url}/a.bin"], check=True
        ),
        "ours": lambda: fetch(f"{url}/a.bin", top),
        "ours, without the sync": lambda: fetch(f"{url}/a.bin", top, sync=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            for left in ("curl", "whole"):
                (top / left).unlink(missing_ok=True)
            os.sync()  # nobody pays for what the one before has left to write
            started = time.perf_counter()
            way()
            if number:
                rates[name].append(size / 1e6 / (time.perf_counter() - started))
    return rates


def fetch(address: str, folder: Path, *, sync: bool = True) -> None:
    file = web.stat("a.bin", address)
    store = web.WebStore(address, file.version)
    with mock.patch("os.fsync", os.fsync if sync else lambda descriptor: None):
        download(file, store, folder / "coming.bytes", folder / "whole")


class CountingStore(web.WebStore):
    """Counts what is read of it in a file that outlives the process."""

    def __init__(self, address: str, version: str, counter: mmap.mmap) -> None:
        super().__init__(address, version)
        self.counter, self.lock = counter, threading.Lock()

    def open(self, start: int, stop: int | None) -> web.WebStream:
        stream = super().open(start, stop)
        readinto = stream.readinto

        def read_and_count(buffer: memoryview) -> int:
            number = readinto(buffer)
            with self.lock:
                self.counter[:8] = (int.from_bytes(self.counter[:8]) + number).to_bytes(8)
            return number

        stream.readinto = read_and_count  # type: ignore[method-assign]
        return stream


def fetch_and_count(address: str, folder: Path) -> None:
    file = web.stat("a.bin", address)
    with (folder / "counter").open("r+b") as counted:
        store = CountingStore(address, file.version, mmap.mmap(counted.fileno(), 8))
        download(file, store, folder / "coming.bytes", folder / "whole")


def kill_again_and_again(url: str, top: Path, size: int, kills: int) -> dict[str, int | bool]:
    """Kill a download at random moments of its way, then let it end."""
    (top / "whole").unlink(missing_ok=True)
    (top / "counter").write_bytes(bytes(8))
    before = sent(top)
    address = f"{url}/slow/a.bin"
    command = [sys.executable, __file__, "--child", address, str(top)]
    notes = top / "coming.journal"
    rng = random.Random(0)
    started = time.perf_counter()
    done = 0
    while done < kills:
        length = notes.stat().st_size if notes.exists() else 0
        child = subprocess.Popen(command)
        while not (notes.exists() and notes.stat().st_size > length) and child.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, size / 100e6 / kills))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            done += 1
        child.wait()
        if (top / "whole").exists():
            break
    subprocess.run(command, check=True)
    time.sleep(0.2)  # nginx notes a request when it has ended
    return {
        "kills": done,
        "read_again": int.from_bytes((top / "counter").read_bytes()) - size,
        "sent_again": sent(top) - before - size,
        "right": sha256_file(top / "whole") == sha256_file(top / "served" / "a.bin"),
        "seconds": round(time.perf_counter() - started),
    }


def sent(top: Path) -> int:
    return sum(map(int, (top / "access.log").read_text().split()))


def start_nginx(top: Path, rate: str) -> tuple[subprocess.Popen[bytes], str]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not nginx or not shutil.which("curl"):
        sys.exit("nginx and curl are needed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (top / "served").mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    (top / "nginx.conf").write_text(CONFIG.format(top=top, port=port, rate=rate, user=user))
    command = [nginx, "-p", str(top), "-c", str(top / "nginx.conf")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.01)
    return server, f"http://127.0.0.1:{port}"


def write_noise(path: Path, size: int) -> None:
    with path.open("wb") as file:
        while size:
            size -= file.write(os.urandom(min(size, 1 << 24)))


if __name__ == "__main__":
    sys.exit(main())
