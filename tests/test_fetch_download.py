"""One file from a real web server: whole or not at all, whatever happens on the way."""

import contextlib
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fetch_servers import Busy, cutting_proxy, environment, nginx, noise, write
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.errors import RunError, SourceError
from tokenmill.pipeline.fetch import download as downloading
from tokenmill.pipeline.fetch import journal as journals
from tokenmill.pipeline.fetch import retry, web
from tokenmill.pipeline.fetch.download import download
from tokenmill.pipeline.fetch.journal import Journal
from tokenmill.pipeline.fetch.retry import Transient, retrying, seconds_of
from tokenmill.pipeline.fetch.web import WebStore
from tokenmill.pipeline.sources import Checksum, SourceFile

__all__ = ["nginx"]  # the fixture

REAL_BLOCK = journals.BLOCK_BYTES
BLOCK = 1 << 12


@pytest.fixture(autouse=True)
def small_blocks_and_no_waiting(monkeypatch):
    for module in (journals, downloading):
        monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.001)


def bring(file: SourceFile, folder: Path, **options) -> downloading.Downloaded:
    store = WebStore(file.address, file.version)
    options = {"span_bytes": 4 * BLOCK, **options}
    return download(file, store, folder / "x.bytes", folder / "x", **options)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK, 50 * BLOCK + 7])
@pytest.mark.parametrize("connections", [1, 3])
def test_the_bytes_are_those_that_are_served(nginx, tmp_path, size, connections):
    data = noise(size)
    write(nginx.root / "a.bin", data)
    file = web.stat("a.bin", f"{nginx.url}/a.bin")
    assert file.bytes == size
    done = bring(file, tmp_path, connections=connections)
    assert (tmp_path / "x").read_bytes() == data
    assert done == downloading.Downloaded(hashlib.sha256(data).hexdigest(), size, size)
    assert {path.name for path in tmp_path.iterdir()} == {"x", "nginx", "served"}


def test_a_server_without_ranges_sends_one_stream(nginx, tmp_path):
    data = noise(30 * BLOCK + 5)
    write(nginx.root / "a.bin", data)
    bring(web.stat("a.bin", f"{nginx.url}/no-ranges/a.bin"), tmp_path)
    assert (tmp_path / "x").read_bytes() == data
    assert {path.name for path in tmp_path.iterdir()} == {"x", "nginx", "served"}


def test_a_redirect_is_followed_once_and_remembered(nginx, tmp_path):
    data = noise(20 * BLOCK)
    write(nginx.root / "a.bin", data)
    bring(web.stat("a.bin", f"{nginx.url}/moved/a.bin"), tmp_path, connections=1)
    assert (tmp_path / "x").read_bytes() == data
    assert sum("/moved/" in line for line in nginx.log()) == 2  # for the listing, for the bytes


@pytest.mark.parametrize("cut_after", [700, 3 * BLOCK, 100_000])
def test_cut_connections_cost_no_byte(nginx, tmp_path, cut_after):
    data = noise(60 * BLOCK + 1)
    write(nginx.root / "a.bin", data)
    file = web.stat("a.bin", f"{nginx.url}/a.bin")
    with cutting_proxy(nginx.port, cut_after) as proxy:
        cut = SourceFile("a.bin", f"{proxy.url}/a.bin", file.bytes, file.version)
        done = bring(cut, tmp_path)
    assert proxy.connections > len(data) // cut_after
    assert (tmp_path / "x").read_bytes() == data
    assert done.read == len(data)


def test_a_server_that_only_cuts_is_given_up(nginx, tmp_path):
    write(nginx.root / "a.bin", noise(60 * BLOCK))
    file = web.stat("a.bin", f"{nginx.url}/a.bin")
    with cutting_proxy(nginx.port, 10) as proxy:
        cut = SourceFile("a.bin", f"{proxy.url}/a.bin?sig=secret", file.bytes, file.version)
        with pytest.raises(SourceError, match=r"a\.bin: no answer .*\(tried 8 times\)") as caught:
            bring(cut, tmp_path)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_what_came_before_is_not_asked_for_again(nginx, tmp_path):
    data = noise(40 * BLOCK + 9)
    write(nginx.root / "a.bin", data)
    file = web.stat("a.bin", f"{nginx.url}/a.bin")
    with Journal(tmp_path / "x.bytes", downloading._identity(file), file.bytes) as journal:
        for block in (0, 1, 7, 40):
            journal.write(block, data[block * BLOCK : (block + 1) * BLOCK])
    done = bring(file, tmp_path)
    assert (tmp_path / "x").read_bytes() == data
    assert done.read == len(data) - 3 * BLOCK - 9


@given(
    st.sets(st.integers(0, 9)), st.integers(0, 15), st.sampled_from(["none", "data", "notes"])
)  # fmt: skip
def test_a_journal_vouches_only_for_blocks_that_are_there(tmp_path_factory, written, cut, damage):
    """As after a crash of the machine: notes may be cut, and bytes may never have been written."""
    part = tmp_path_factory.mktemp("journal") / "x.bytes"
    data = noise(9 * BLOCK + 10)
    with Journal(part, bytes(32), len(data)) as journal:
        for block in sorted(written):
            journal.write(block, data[block * BLOCK : (block + 1) * BLOCK])
    notes = part.with_suffix(".journal")
    lost = set()
    if damage == "notes" and written:
        os.truncate(notes, notes.stat().st_size - cut)
        lost = {max(written)} if cut else set()
    if damage == "data" and written:
        lost = {min(written)}
        with part.open("r+b") as file:
            file.seek(min(written) * BLOCK)
            file.write(bytes(8))
    with Journal(part, bytes(32), len(data)) as journal:
        assert journal.blocks() == written - lost
        journal.write(2, data[2 * BLOCK : 3 * BLOCK])
        assert journal.blocks() == written - lost | {2}
    with Journal(part, b"1" * 32, len(data)) as journal:
        assert journal.blocks() == set()


@pytest.mark.parametrize("how", ["other bytes", "shorter", "gone"])
def test_a_file_that_changes_on_the_way_is_one_clear_error(nginx, tmp_path, how):
    served = write(nginx.root / "a.bin", noise(20 * BLOCK))
    file = web.stat("a.bin", f"{nginx.url}/a.bin")
    if how == "gone":
        served.unlink()
    else:
        served.write_bytes(noise(20 * BLOCK if how == "other bytes" else 5 * BLOCK, seed=1))
        os.utime(served, (10**9, 10**9))
    with pytest.raises(SourceError, match="not there" if how == "gone" else "changed since") as e:
        bring(file, tmp_path)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "x").exists()
    served.write_bytes(noise(20 * BLOCK, seed=2))
    bring(web.stat("a.bin", f"{nginx.url}/a.bin"), tmp_path)
    assert (tmp_path / "x").read_bytes() == noise(20 * BLOCK, seed=2)


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_a_checksum_of_the_store_is_compared(nginx, tmp_path, kind):
    data = noise(9 * BLOCK)
    write(nginx.root / "a.bin", data)
    right = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "git": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    }[kind]
    place = f"{nginx.url}/a.bin"
    bring(SourceFile("a", place, len(data), "", Checksum(kind, right)), tmp_path)
    with pytest.raises(SourceError, match=f"their {kind} is {right}; the store says 00"):
        bring(SourceFile("a", place, len(data), "", Checksum(kind, "00")), tmp_path / "wrong")
    assert not list((tmp_path / "wrong").iterdir())


def test_a_password_of_netrc_opens_a_closed_place(nginx, tmp_path, monkeypatch):
    write(nginx.root / "a.bin", b"text")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(SourceError, match=r"closed/a\.bin: the server refuses access \(401\)"):
        web.stat("a", f"{nginx.url}/closed/a.bin")
    write(tmp_path / "netrc", b"machine 127.0.0.1 login ada password secret-word\n").chmod(0o600)
    bring(web.stat("a", f"{nginx.url}/closed/a.bin"), tmp_path)
    assert (tmp_path / "x").read_bytes() == b"text"
    write(tmp_path / "netrc", b"machine 127.0.0.1 login ada password wrong\n").chmod(0o600)
    with pytest.raises(SourceError, match="refuses access") as caught:
        web.stat("a", f"{nginx.url}/closed/a.bin")
    assert "wrong" not in str(caught.value)


def test_a_disk_that_is_too_small_is_said_before_a_byte_comes(nginx, tmp_path, monkeypatch):
    write(nginx.root / "a.bin", noise(BLOCK))
    file = web.stat("a.bin", f"{nginx.url}/a.bin")
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: os.statvfs_result)
    monkeypatch.setattr(os.statvfs_result, "free", 0, raising=False)
    with pytest.raises(RunError, match=r"0\.00 GB have to come, 0\.00 GB are free"):
        bring(file, tmp_path)
    assert len(nginx.log()) == 1


def test_a_disk_that_fills_up_is_the_systems_error_with_the_place(nginx, tmp_path, monkeypatch):
    write(nginx.root / "a.bin", noise(30 * BLOCK))
    file = web.stat("a.bin", f"{nginx.url}/a.bin")

    def full(descriptor, data, place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journals.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as caught:
        bring(file, tmp_path)
    assert caught.value.filename == str(tmp_path / "x.bytes")


CHILD = """
import sys
from pathlib import Path
from tokenmill.pipeline.fetch.download import download
from tokenmill.pipeline.fetch import web
file = web.stat("a.bin", sys.argv[1])
folder = Path(sys.argv[2])
download(file, web.WebStore(file.address, file.version), folder / "x.bytes", folder / "x")
"""


def test_a_download_killed_again_and_again_ends_with_the_right_bytes(nginx, tmp_path):
    data = noise(24 << 20)
    write(nginx.root / "a.bin", data)
    command = [sys.executable, "-c", CHILD, f"{nginx.url}/slow/a.bin", str(tmp_path)]
    notes = tmp_path / "x.journal"
    kills = 0
    for seconds in (0.1, 0.35, 0.2):
        before = notes.stat().st_size if notes.exists() else 0
        child = subprocess.Popen(command, env=environment())
        while not notes.exists() or notes.stat().st_size <= before:
            time.sleep(0.01)
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills == 3
    come = (notes.stat().st_size - 32) // 16 * REAL_BLOCK
    assert 0 < come < len(data)
    log = len(nginx.log())
    subprocess.run([*command[:3], f"{nginx.url}/a.bin", str(tmp_path)], check=True)
    assert (tmp_path / "x").read_bytes() != b""
    assert (tmp_path / "x").read_bytes() == data
    last = sum(int(line.split()[1]) for line in nginx.log()[log:])
    assert last <= len(data) - come + 1 + REAL_BLOCK


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(tmp_path, status):
    data = noise(3 * BLOCK)
    with Busy(data, status, status).running() as server:
        bring(SourceFile("a", f"{server.url}/a", len(data)), tmp_path, connections=1)
        assert server.asked == 3
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_a_refusal_is_not_asked_again(tmp_path, status):
    with Busy(b"", status, status).running() as server:
        with pytest.raises(SourceError, match=str(status)):
            bring(SourceFile("a", f"{server.url}/a?sig=secret", 9), tmp_path)
        assert server.asked == 1


def test_waiting_doubles_to_a_minute_and_a_server_may_ask_for_more(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.5)
    slept = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    answers = iter([None, None, 7.0, None, None, None, None])

    def fail():
        raise Transient("busy", next(answers, None))

    counter = retry.Attempts("x", 9, slept.append)
    for _ in range(8):
        counter.wait(Transient("busy", next(answers, None)))
    assert slept == [0.5, 1, 7, 4, 8, 16, 32, 60]
    with pytest.raises(SourceError, match=r"x: busy \(tried 9 times\)\. Check the network"):
        counter.wait(Transient("busy"))
    with pytest.raises(SourceError, match=r"\(tried 1 times\)"):
        retrying("x", lambda: (_ for _ in ()).throw(Transient("busy", 3600.0)))
    assert seconds_of("12") == 12
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds_of(None) is None


def test_connections_are_used_again_and_one_that_died_is_replaced(nginx, tmp_path):
    data = noise(40 * BLOCK)
    write(nginx.root / "a.bin", data)
    with cutting_proxy(nginx.port, 10**9) as proxy:
        file = web.stat("a.bin", f"{proxy.url}/a.bin")
        bring(file, tmp_path, connections=1)
        assert proxy.connections == 1
        for link in proxy.open:
            with contextlib.suppress(OSError):  # one that has ended already
                link.shutdown(socket.SHUT_RDWR)
        (tmp_path / "x").unlink()
        bring(file, tmp_path, connections=1)
        assert proxy.connections == 2
    assert (tmp_path / "x").read_bytes() == data


def test_a_proxy_of_the_environment_is_taken_with_its_password(tmp_path, monkeypatch):
    data = noise(2 * BLOCK)
    with Busy(data).running() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//ada:word@"))
        bring(SourceFile("a", "http://far.example/a", len(data)), tmp_path, connections=1)
        assert proxy.seen == [("http://far.example/a", "Basic YWRhOndvcmQ=")]
    assert (tmp_path / "x").read_bytes() == data
