"""Runs far away: the order with a cache is the order without one, each shard comes once, the cache
keeps its bound, and what fails on the way is tried again, then named."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from fetch_servers import _Handler, _Server
from loader_runs import make_run

from tokenmill.errors import FormatError, RecipeError, RunError
from tokenmill.loader import Loader
from tokenmill.loader.cache_folder import cached_bytes
from tokenmill.loader.horizon import Horizon
from tokenmill.shards.overlay import SkippedRows, append_entry
from tokenmill.shards.shard_list import ShardInfo

PHASES = {"phase1": {"mixture": {"all": 0.5, "16+": 0.5}, "cohort_shards": 3}}
ROWS = {"0-7": 40, "8-15": 60, "16+": 200}
"""8, 12 and 40 shards of 5 rows. A step has 5 rows, of which 4 are of 16+: a visit has 50 steps."""
NUM_STEPS = 12
"""So far ahead are no shards of the next visit."""


class Store(_Server):
    """A web server over a folder. It counts what it sends, fails as it is told, and looks at a
    cache each time."""

    def __init__(self, top):
        super().__init__(("127.0.0.1", 0), _StoreHandler)
        self.top = top
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.sent = Counter()
        self.faults = {}
        """Path to what happens to one request for it after the other."""
        self.cache = None
        self.most_cached = 0
        self.lock = threading.Lock()

    def shards_sent(self):
        return {path: n for path, n in self.sent.items() if path.endswith(".arrow")}

    def look(self):
        if self.cache:
            sizes = (self.size(entry) for entry in os.scandir(self.cache / "shards"))
            self.most_cached = max(self.most_cached, sum(sizes))

    @staticmethod
    def size(entry):
        with contextlib.suppress(FileNotFoundError):
            return entry.stat().st_size
        return 0


class _StoreHandler(_Handler):
    def do_GET(self):
        store, path = self.server, self.path[1:]
        with store.lock:
            store.sent[path] += 1
            store.look()
            fault = store.faults[path].pop(0) if store.faults.get(path) else None
        if fault is None and not (store.top / path).exists():
            fault = 404
        if isinstance(fault, int):
            return self.answer(fault)
        data = (store.top / path).read_bytes()
        if fault == "flip":
            data = data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]
        if fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:100])
            self.close_connection = True
            return None
        if fault == "stall":
            store.stalled.set()
            store.go_on.wait(20)
        return self.answer(200, data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), PHASES, rows=ROWS)


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def start(top):
            store = stack.enter_context(Store(top))
            thread = threading.Thread(target=store.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(store.shutdown)
            return store

        yield start


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("tokenmill.loader.remote.FIRST_SECONDS", 0.001)


def values(batch):
    return batch.step, batch.input_ids.tolist(), batch.targets.tolist(), batch.doc_ids.tolist()


def bytes_of(loader, num_shards):
    """Room for so many shards."""
    return num_shards * max(map(cached_bytes, loader.plan.manifest.shards))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_order_is_the_same_each_shard_comes_once_and_the_bound_holds(
    run, serve, tmp_path, threads
):
    store = serve(run)
    store.cache = tmp_path / "cache"
    (store.cache / "shards").mkdir(parents=True)
    alone = Loader(run, prefetch_bytes=0)
    cache_bytes = bytes_of(alone, 2 * 3 * len(ROWS))  # two cohorts of each bucket
    options = {"cache": store.cache, "cache_bytes": cache_bytes, "prefetch_bytes": 10_000}
    with Loader(store.address, threads=threads, **options) as loader:
        for step in range(NUM_STEPS):
            assert values(next(loader)) == values(*alone.batch_at(step))
            loader.state_dict()
    read = {info.path for step in range(NUM_STEPS) for info in alone._phase._shards_of(step)}
    sent = store.shards_sent()
    assert {f"shards/short/{path}" for path in read} <= sent.keys()
    assert set(sent.values()) == {1}
    assert 0 < store.most_cached <= cache_bytes
    assert not list(store.cache.glob("readers/*"))


def test_over_several_visits_each_shard_comes_once_a_visit_at_most(run, serve, tmp_path):
    store = serve(run)
    store.cache = tmp_path / "cache"
    (store.cache / "shards").mkdir(parents=True)
    alone = Loader(run, "phase1", prefetch_bytes=0)
    options = {"cache": store.cache, "cache_bytes": bytes_of(alone, 2 * 3 * len(ROWS))}
    num_steps = 130
    with Loader(store.address, prefetch_bytes=0, **options) as loader:
        for step in range(num_steps):
            assert values(next(loader)) == values(*alone.batch_at(step))
    visits = Counter(path for path in store.shards_sent())
    for bucket, rows in ROWS.items():
        read = alone.plan.counts_until(num_steps)[list(ROWS).index(bucket)]
        begun = 1 + (read + options["cache_bytes"] // 4000 * 5) // rows
        visits.update({path: begun - 1 for path in visits if f"/{bucket}/" in path})
    assert all(number <= visits[path] for path, number in store.shards_sent().items())
    assert store.most_cached <= options["cache_bytes"]


READER = """
import sys, time
from tokenmill.loader import Loader
address, cache, cache_bytes = sys.argv[1:]
options = {"cache": cache, "cache_bytes": int(cache_bytes)}
loader = Loader(address, "phase1", 1, 2, prefetch_bytes=0, **options)
for step in range(12):
    print(*next(loader).doc_ids.tolist(), flush=True)
    step or input()
    time.sleep(0.01)
input()
# It leaves with threads at work and nothing closed.
"""


def wait_until_nothing_comes(folder):
    """Wait until no shard has come for half a second."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        num_here = len(list(folder.glob("*.arrow")))
        if num_here != before:
            before, since = num_here, time.monotonic()
        time.sleep(0.01)


def test_processes_share_a_cache_and_a_killed_one_leaves_nothing_to_clean(run, serve, tmp_path):
    store = serve(run)
    store.cache = tmp_path / "cache"
    (store.cache / "shards").mkdir(parents=True)
    ranks = [Loader(run, "phase1", rank, 2, prefetch_bytes=0) for rank in range(2)]
    cache_bytes = bytes_of(ranks[0], 18)
    command = [sys.executable, "-c", READER, store.address, str(store.cache), str(cache_bytes)]
    pipe = subprocess.PIPE
    # One is killed while a shard is on its way to it, for which the others wait.
    first = "shards/short/" + ranks[0]._phase._shards_of(0)[0].path
    store.faults[first] = ["stall"]
    store.stalled, store.go_on = threading.Event(), threading.Event()
    with subprocess.Popen(command, stdout=pipe) as killed:
        assert store.stalled.wait(30)
        options = {"cache": store.cache, "cache_bytes": cache_bytes, "prefetch_bytes": 0}
        with (
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as slow,
            Loader(store.address, "phase1", 0, 2, **options) as fast,
        ):
            wait_until_nothing_comes(store.cache / "shards")  # else what is on its way counts
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            store.sent.clear()
            assert values(next(fast)) == values(*ranks[0].batch_at(0))
            lines = [slow.stdout.readline()]
            slow.stdin.write("go on\n")
            slow.stdin.flush()
            for step in range(1, NUM_STEPS):
                assert values(next(fast)) == values(*ranks[0].batch_at(step))
            lines += [slow.stdout.readline() for _ in range(1, NUM_STEPS)]
            sent = store.shards_sent()  # what is on its way to one that leaves comes again
            slow.communicate("leave\n")
            assert slow.returncode == 0
        store.go_on.set()
    expected = [ranks[1].batch_at(step)[0].doc_ids.tolist() for step in range(NUM_STEPS)]
    assert [list(map(int, line.split())) for line in lines] == expected
    assert sent[first] == 1
    # What comes ahead may take the room of the shard that the kill cut off. It has to give it back
    # to who waits for that shard, and then comes again.
    assert sum(sent.values()) <= len(sent) + 1
    assert store.most_cached <= cache_bytes
    assert not list(store.cache.glob("shards/*.part-*"))


def one_shard(tmp_path):
    """A run of 4 rows in one shard."""
    return make_run(tmp_path / "run", rows={"16+": 4}), "shards/short/16+/00000.arrow"


@pytest.mark.parametrize(
    "faults", [[503, 500], ["cut"], ["flip"], [503, "cut", "flip"]], ids=lambda faults: str(faults)
)
def test_what_passes_by_itself_is_not_noticed(serve, tmp_path, faults):
    run, path = one_shard(tmp_path)
    store = serve(run)
    store.faults[path] = list(faults)
    with Loader(store.address, cache=tmp_path / "cache") as loader:
        assert values(next(loader)) == values(*Loader(run).batch_at(0))
    assert store.sent[path] == len(faults) + 1


def refusal_of(store, cache, kind, **options):
    with pytest.raises(kind) as refusal, Loader(store.address, cache=cache, **options) as loader:
        next(loader)
    return str(refusal.value)


def test_a_shard_that_is_damaged_in_the_store_names_its_rows_and_can_be_skipped(
    serve, tmp_path, monkeypatch
):
    for module in ("shard", "mapped"):
        monkeypatch.setattr(f"tokenmill.shards.{module}.CRC_BLOCK_BYTES", 64)
    run, path = one_shard(tmp_path)
    store, cache = serve(run), tmp_path / "cache"
    data = bytearray((run / path).read_bytes())
    (info,) = Loader(run).plan.manifest.shards
    data[info.offsets[0] + 2 * 128 + 64] ^= 1  # row 2
    (run / path).write_bytes(data)
    assert refusal_of(store, cache, FormatError) == (
        f"{store.address}/{path}: rows 2 to 2: damaged. Copy it there again from where "
        f"the run was built. Or train without these rows: `tokenmill skip {store.address} --phase "
        "phase1 --rows 16+:2-2`."
    )
    append_entry(run, SkippedRows("phase1", 0, "short", "16+", 2, 2))
    with Loader(store.address, cache=cache) as loader:
        assert np.count_nonzero(next(loader).input_ids.reshape(5, -1).any(axis=1)) >= 3


def test_a_shard_that_is_gone_or_cannot_be_had_is_named(serve, tmp_path):
    run, path = one_shard(tmp_path)
    store, cache = serve(run), tmp_path / "cache"
    store.faults[path] = [404] * 99
    told = refusal_of(store, cache, FormatError)
    place = f"{store.address}/{path}"
    assert f"{place}: rows 0 to 3: {place} is not there. Copy it there again" in told
    store.faults[path] = [503] * 99
    told = refusal_of(store, cache, RunError)
    assert told.startswith(f"{store.address}/{path}: cannot be read (")
    assert told.endswith(
        "tried 5 times). Check the network and the address, then go on from the last checkpoint."
    )


def test_a_cache_that_cannot_hold_a_step_says_what_it_needs(run, serve, tmp_path):
    store = serve(run)
    alone = Loader(run)
    infos = alone._phase._shards_of(0)
    most = sum(map(cached_bytes, infos)) - 1
    told = refusal_of(store, tmp_path / "cache", RecipeError, cache_bytes=most)
    assert told == (
        f"cache_bytes: step 0 reads {len(infos)} shards, {most + 1} bytes, and the cache may hold "
        f"{most}. Allow at least twice as many as a step needs, or set loader.cohort_shards in the "
        "recipe, so that a step needs fewer shards."
    )


def test_an_address_without_a_cache_or_a_store_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"s3://b/run is far away.*needs cache=FOLDER"):
        Loader("s3://b/run")
    with pytest.raises(RecipeError, match=r"ftpx://b/run: no store for it"):
        Loader("ftpx://b/run", cache=tmp_path)


def test_closing_does_not_wait_for_a_store_that_is_silent(serve, tmp_path):
    run, path = one_shard(tmp_path)
    store = serve(run)
    store.faults[path] = ["stall"]
    store.stalled, store.go_on = threading.Event(), threading.Event()
    alone = Loader(run, prefetch_bytes=0)
    with Loader(store.address, cache=tmp_path / "cache") as loader:
        waiting = threading.Thread(target=lambda: suppressed(lambda: next(loader)))
        waiting.start()
        assert store.stalled.wait(10)
        began = time.monotonic()
        loader.close()
        waiting.join()
        assert time.monotonic() - began < 1
        # It can go on, when the one that hung has given up.
        store.go_on.set()
        assert values(next(loader)) == values(*alone.batch_at(0))


def suppressed(action):
    with contextlib.suppress(RuntimeError):
        action()


def test_what_ends_a_fetching_thread_reaches_who_waits(serve, tmp_path, monkeypatch):
    run, _ = one_shard(tmp_path)

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("tokenmill.loader.fetching.sha256_file", fail)
    with (
        Loader(serve(run).address, cache=tmp_path / "cache") as loader,
        pytest.raises(ZeroDivisionError),
    ):
        next(loader)


def info_of(name):
    return ShardInfo(
        path=name, bucket="b", held_out=False, rows=1, real_tokens=1, sequences=1, pieces=1,
        max_pieces=1, generation=0, offsets=(0,) * 7, bytes=1, sha256=name,
    )  # fmt: skip


def test_the_horizon_knows_the_next_use_of_what_it_has_met():
    steps = ["ab", "bc", "a", "d", "b"]
    horizon = Horizon(lambda step: [info_of(name) for name in steps[step]])
    for _ in range(4):
        horizon.look_further()
    assert [(step, info.path) for step, info in horizon.needed()] == [
        (0, "a"), (0, "b"), (1, "c"), (3, "d"),
    ]  # fmt: skip
    horizon.go_to(1)
    assert [(step, info.path) for step, info in horizon.needed()] == [
        (1, "b"), (1, "c"), (2, "a"), (3, "d"),
    ]  # fmt: skip
    assert horizon.next_use("a", 0) == 0
    assert horizon.next_use("b", 2) is None
    horizon.look_further()
    assert horizon.next_use("b", 2) == 4
