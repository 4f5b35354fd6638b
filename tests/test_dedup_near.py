"""Near duplicates are found as often as theory says, and everything removed has its evidence."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from math import sqrt

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import pair, planted_records, random_words, recipe, write_lines

from tokenmill.cli import main
from tokenmill.errors import RecipeError
from tokenmill.pipeline.dedup.clusters import flatten, join, swap_longest
from tokenmill.pipeline.dedup.config import PRESETS, Bands, DedupConfig, NearConfig
from tokenmill.pipeline.dedup.pairs import FIRST, pair_up
from tokenmill.pipeline.dedup.probability import probability_linked
from tokenmill.pipeline.signatures import SignatureConfig
from tokenmill.shards.files import read_json

SMALL = 1 << 20
"""So little memory that some thousand documents need several groups, partitions and files."""
PAIRS = 1000


def build(path, run, *changes, engine="inline"):
    arguments = [part for change in changes for part in ("--set", change)]
    return main(["build", str(path), "--out", str(run), "--engine", engine, *arguments])


def decisions(run):
    rows = ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()
    return {row["id"]: row for row in rows}


def removals(run):
    files = sorted((run / "removals").rglob("*.arrow"))
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A run over planted pairs in five files, in little memory."""
    folder = tmp_path_factory.mktemp("planted")
    records, pairs = planted_records(1, of_each=PAIRS)
    for number in range(5):
        write_lines(folder / "in" / f"{number}.jsonl", records[number::5])
    near = {"memory_bytes": SMALL}
    path = recipe(folder, dedup={"near": near}, text="drop", held_out=0.0)
    assert build(path, folder / "run") == 0
    return folder, pairs


def found(rows, ids):
    """Whether one of a pair left for the other's sake."""
    one, other = (rows[id] for id in ids)
    return other["doc_id"] == one["duplicate_of"] or one["doc_id"] == other["duplicate_of"]


@pytest.mark.parametrize(("alike", "least"), [(0.9, 0.999), (0.8, 0.95)])
def test_planted_pairs_are_found(planted, alike, least):
    folder, pairs = planted
    rows = decisions(folder / "run")
    share = np.mean([found(rows, ids) for ids in pairs[alike]])
    theory = probability_linked(alike, PRESETS["default"])
    assert theory > least
    assert share >= least
    assert abs(share - theory) <= 4 * sqrt(theory * (1 - theory) / PAIRS) + 1 / PAIRS


@pytest.mark.parametrize("alike", [0.5, 0.45])
def test_pairs_that_share_half_stay(planted, alike):
    folder, pairs = planted
    rows = decisions(folder / "run")
    gone = sum(rows[id]["reason"] != "" for ids in pairs[alike] for id in ids)
    assert probability_linked(alike, PRESETS["default"]) < 0.0001
    assert gone <= 0.001 * PAIRS


def test_little_memory_means_several_groups_partitions_and_files(planted):
    folder, _ = planted
    receipts = folder / "run" / "receipts"
    assert len(list((receipts / "near-bands").iterdir())) > 3
    assert len(list((receipts / "near-pairs").iterdir())) > 3
    files = (folder / "run" / "dedup" / "near").glob("pairs-*/*.arrow")
    assert max(Counter(file.parent.name for file in files).values()) > 1


def test_what_stays_is_earlier_and_stays_and_the_similarity_is_that_of_the_two(planted):
    folder, pairs = planted
    rows = decisions(folder / "run")
    by_id = {row["doc_id"]: row for row in rows.values()}
    order = {doc_id: place for place, doc_id in enumerate(by_id)}  # as the plan has them
    near = [row for row in rows.values() if row["reason"]]
    assert {row["reason"] for row in near} == {"near_duplicate"}
    for row in near:
        assert by_id[row["duplicate_of"]]["reason"] == ""
        assert order[row["duplicate_of"]] < order[row["doc_id"]]
        assert row["similarity"] >= 0.7
    for alike in (0.9, 0.8):
        mine = [rows[id]["similarity"] for ids in pairs[alike] for id in ids if rows[id]["reason"]]
        deviation = sqrt(alike * (1 - alike) / 112)
        assert abs(np.mean(mine) - alike) < 4 * deviation / sqrt(len(mine)) + 0.002
        assert 0.7 * deviation < np.std(mine) < 1.1 * deviation


def test_memory_workers_and_engine_change_no_byte_of_a_removal(planted, tmp_path):
    folder, _ = planted
    run = folder / "run"
    assert build(folder / "recipe.yaml", tmp_path / "ray", engine="ray") == 0
    assert removals(tmp_path / "ray") == removals(run)
    before = {id: row["duplicate_of"] for id, row in decisions(run).items()}
    large = "dedup.near.memory_bytes=500000000"
    assert build(folder / "recipe.yaml", tmp_path / "large", large) == 0
    assert {id: row["duplicate_of"] for id, row in decisions(tmp_path / "large").items()} == before
    assert (
        read_json(tmp_path / "ray" / "outputs.json")["root"]
        == (read_json(tmp_path / "large" / "outputs.json")["root"])
    )


def small_run(folder, texts, dedup, **record):
    """The decisions on some texts, by their place."""
    write_lines(
        folder / "in" / "a.jsonl",
        [
            {"id": str(number), "text": text, **{k: v[number] for k, v in record.items()}}
            for number, text in enumerate(texts)
        ],
    )
    path = recipe(folder, dedup=dedup, held_out=0.0)
    assert build(path, folder / "run") == 0
    rows = decisions(folder / "run")
    return [rows[str(number)] for number in range(len(texts))]


def chain(rng, length, num_runs=300, step=20):
    """Texts each of which moves on by a few words: neighbours are alike, the ends are not."""
    words = random_words(rng, num_runs + 4 + step * length)
    return [" ".join(words[i * step : i * step + num_runs + 4]) for i in range(length)]


def test_a_cluster_is_what_links_join_and_all_of_it_leaves_for_one_document(tmp_path):
    texts = chain(np.random.default_rng(5), 12)
    rows = small_run(tmp_path, texts, {"near": {}})
    assert [row["reason"] for row in rows] == ["", *["near_duplicate"] * 11]
    assert {row["duplicate_of"] for row in rows[1:]} == {rows[0]["doc_id"]}
    # Neighbours share 280 of 320 runs; the ends 80 of 520.
    assert abs(rows[1]["similarity"] - 280 / 320) < 0.15
    assert abs(rows[11]["similarity"] - 80 / 520) < 0.15


def test_the_longest_stays_if_the_recipe_says_so(tmp_path):
    rng = np.random.default_rng(6)
    words = random_words(rng, 230)
    texts = [" ".join(words[:length]) for length in (200, 215, 230, 230, 210)]
    texts[3] = texts[3] + " "  # as long, but not the same bytes
    rows = small_run(tmp_path, texts, {"near": {"keep": "longest"}})
    assert [row["reason"] == "" for row in rows] == [False, False, True, False, False]
    assert {row["duplicate_of"] for row in rows if row["reason"]} == {rows[2]["doc_id"]}


def test_texts_without_words_are_no_duplicates_and_short_ones_are(tmp_path):
    texts = ["-- -- !", "... ?", "?? !", "two words", "Two words!", "other words"]
    rows = small_run(tmp_path, texts, {"near": {}})
    assert [row["reason"] for row in rows] == ["", "", "", "", "near_duplicate", ""]


def test_documents_of_other_dumps_are_not_compared(tmp_path):
    one, other = pair(np.random.default_rng(7), num_runs=190, shared=185)
    texts = [one, other, one + " x", one, one]
    dumps = ["2013-20", "2013-20", "2014-10", "2014-10", None]
    rows = small_run(tmp_path, texts, {"near": {}, "scope": "dump"}, dump=dumps)
    assert [row["reason"] for row in rows] == ["", "near_duplicate", "", "near_duplicate", ""]
    rows = small_run(tmp_path, texts, {"near": {}, "scope": "all"}, dump=dumps)
    gone = ["", "near_duplicate", "near_duplicate", "exact_duplicate", "exact_duplicate"]
    assert [row["reason"] for row in rows] == gone


def test_an_earlier_step_decides_first_and_its_removals_take_no_part(tmp_path):
    one, other = pair(np.random.default_rng(8), num_runs=190, shared=185)
    texts = [one, "something else altogether", other, one]
    urls = ["https://a.example/1", "https://a.example/2", "http://a.example/2/#x", ""]
    rows = small_run(tmp_path, texts, {"near": {}, "url": True}, url=urls)
    assert [row["reason"] for row in rows] == ["", "", "url_duplicate", "exact_duplicate"]
    assert rows[2]["duplicate_of"] == rows[1]["doc_id"]


def test_what_stands_for_a_duplicate_is_a_document_that_stays(tmp_path):
    stays, near = pair(np.random.default_rng(10), num_runs=190, shared=185)
    rows = small_run(tmp_path, [stays, near, near], {"near": {}})
    assert [row["reason"] for row in rows] == ["", "near_duplicate", "exact_duplicate"]
    assert [row["duplicate_of"] for row in rows[1:]] == [rows[0]["doc_id"]] * 2
    assert rows[2]["similarity"] == rows[1]["similarity"] < 1


def test_what_a_changed_recipe_no_longer_asks_for_leaves_the_run(tmp_path):
    one, other = pair(np.random.default_rng(9), num_runs=190, shared=185)
    small_run(tmp_path, [one, other], {"near": {}, "url": True})
    run = tmp_path / "run"
    assert build(tmp_path / "recipe.yaml", run, "dedup.near=null", "dedup.url=false") == 0
    kept = {path.parent.name for path in (run / "removals").rglob("*.arrow")}
    assert kept == {"exact_duplicate"}
    assert not list((run / "dedup" / "near").rglob("*.arrow"))
    assert not [path for path in (run / "receipts").rglob("*.json") if "near" in path.parent.name]


def test_another_threshold_mills_nothing_anew(tmp_path):
    one, other = pair(np.random.default_rng(10), num_runs=190, shared=175)
    small_run(tmp_path, [one, other], {"near": {}})
    milled = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/milled").rglob("*.arrow")}
    assert build(tmp_path / "recipe.yaml", tmp_path / "run", "dedup.near.min_similarity=0.99") == 0
    assert {row["reason"] for row in decisions(tmp_path / "run").values()} == {""}
    assert milled == {path: path.stat().st_mtime_ns for path in milled}


def test_a_build_killed_in_any_of_its_steps_ends_with_the_same_removals(planted, tmp_path):
    """Each receipt that appears is a moment to be killed at."""
    folder, _ = planted
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tokenmill", "build", str(folder / "recipe.yaml")]
    killed = 0
    for stage in ("near-bands", "near-sketches", "near-evidence"):
        process = subprocess.Popen(
            [*command, "--out", str(run), "--engine", "inline"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and not list((run / "receipts" / stage).glob("*.json")):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    assert build(folder / "recipe.yaml", run) == 0
    assert removals(run) == removals(folder / "run")


def test_why_names_what_stays_and_how_similar_it_is(tmp_path, capsys):
    one, other = pair(np.random.default_rng(11), num_runs=190, shared=185)
    urls = ["https://a.example/1", "https://a.example/2"]
    rows = small_run(tmp_path, [one, other], {"near": {}}, url=urls)
    capsys.readouterr()
    assert main(["why", str(tmp_path / "run"), "1"]) == 0
    said = f"near_duplicate of document {rows[0]['doc_id']} (https://a.example/1), estimated"
    assert said in capsys.readouterr().out


def connected(links):
    """The first of all documents that each of 31 is linked with: slow and obvious."""
    first = list(range(31))
    for _ in first:
        for one, other in links:
            first[one] = first[other] = min(first[one], first[other])
    return first


def joined(parents, links, settled):
    pairs = np.array(links, np.uint32).reshape(-1, 2)
    join(parents, pairs[:, 0], pairs[:, 1], settled)
    flatten(parents)
    return parents.tolist()


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60),
    st.integers(0, 31),
    st.randoms(),
)
def test_clusters_are_the_connected_parts_in_whatever_order_links_come(links, settled, random):
    random.shuffle(links)
    first = connected(links)
    assert joined(np.arange(31, dtype=np.uint32), links, 0) == first
    # Or generation by generation: then those from `settled` on change nothing for those before.
    old = [link for link in links if max(link) < settled]
    new = [link for link in links if max(link) >= settled]
    parents = np.arange(31, dtype=np.uint32)
    joined(parents, old, 0)
    after = joined(parents, new, settled)
    assert after[:settled] == connected(old)[:settled]
    assert [after[n] != n for n in range(settled, 31)] == [
        first[n] != n for n in range(settled, 31)
    ]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.data())
def test_the_longest_of_the_first_generation_stays_or_the_first_of_them(roots, data):
    first = [roots.index(root) for root in roots]
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=len(roots), max_size=len(roots)))
    other = np.array([n for n, root in enumerate(first) if root != n], np.uint32)
    one = np.array([first[n] for n in other], np.uint32)
    settled = data.draw(st.integers(1, len(roots)))
    stays, leaves = swap_longest(one, other, np.array(lengths, np.uint32), np.array([0, settled]))
    expected = set()
    for root in set(first):
        members = [n for n in range(len(first)) if first[n] == root]
        oldest = [n for n in members if (n < settled) == (root < settled)]
        best = max(oldest, key=lambda n: (lengths[n], -n))
        expected |= {(best, n) for n in members if n != best}
    assert set(zip(stays.tolist(), leaves.tolist(), strict=True)) == expected


@given(st.lists(st.integers(1, 3 * FIRST), max_size=4), st.data())
def test_a_set_gives_all_its_pairs_or_those_with_the_first_and_the_one_before(sizes, data):
    ends = np.cumsum([0, *sizes])
    starts = np.repeat(ends[:-1], sizes)
    numbers = np.arange(100, 100 + ends[-1], dtype=np.uint32)
    expected = set()
    for start, size in zip(ends[:-1], sizes, strict=True):
        for later in range(size):
            earlier = set(range(min(later, FIRST))) | ({later - 1} if later else set())
            expected |= {(100 + start + a, 100 + start + later) for a in earlier}
    cut = data.draw(st.integers(0, int(ends[-1])))
    found = []
    for begin, end in ((0, cut), (cut, int(ends[-1]))):
        one, other = pair_up(numbers, starts, begin, end)
        found += zip(one.tolist(), other.tolist(), strict=True)
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_the_presets_are_those_of_their_papers():
    fineweb, refinedweb = (NearConfig(preset=p).banding for p in ("fineweb", "refinedweb"))
    assert fineweb == Bands(14, 8, 0.0)
    assert refinedweb == Bands(450, 20, 0.0)
    for s in (0.5, 0.75, 0.8):
        assert probability_linked(s, fineweb) == pytest.approx(1 - (1 - s**8) ** 14, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"near": NearConfig(bands=20), "signatures": SignatureConfig()}, "at least 140 = bands"),
    ],
)
def test_signatures_that_are_too_short_for_the_bands_are_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        DedupConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bands": 0}, "at least 1, got 0 and 7"),
        ({"min_similarity": 1.5}, "from 0 to 1, got 1.5"),
        ({"memory_bytes": 1000}, "1 MiB"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        NearConfig(**settings)


def test_the_mill_stores_what_the_bands_need():
    assert DedupConfig(near=NearConfig(preset="fineweb")).signatures.num_hashes == 112
    assert DedupConfig(near=NearConfig(preset="refinedweb")).signatures.num_hashes == 9000
    assert DedupConfig().signatures is None


def test_documents_that_came_as_tokens_are_near_duplicates_of_none(tmp_path):
    """The mill stores no signatures of them."""
    rng = np.random.default_rng(13)
    one, other = pair(rng, num_runs=190, shared=185)
    pq.write_table(pa.table({"input_ids": [[7] * 60, [7] * 60 + [8]]}), tmp_path / "a.parquet")
    ids = {
        "kind": "web", "path": str(tmp_path / "a.parquet"), "format": "tokens",
        "columns": {"text": "input_ids"},
    }  # fmt: skip
    write_lines(tmp_path / "in" / "a.jsonl", [{"text": one}, {"text": other}])
    web = {"kind": "web", "path": str(tmp_path / "in"), "format": "jsonl"}
    path = recipe(tmp_path, sources={"ids": ids, "web": web}, dedup={"near": {}}, held_out=0.0)
    assert build(path, tmp_path / "run") == 0
    table = ds.dataset(tmp_path / "run" / "decisions", format="parquet").to_table()
    reasons = Counter((row["source"], row["reason"]) for row in table.to_pylist())
    assert reasons == {("ids", ""): 2, ("web", ""): 1, ("web", "near_duplicate"): 1}
