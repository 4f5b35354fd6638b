"""Near duplicates of real pages, and what datasketch finds on the same texts."""

import json
from itertools import combinations
from math import prod, sqrt

import datasketch
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from planted import planted_records, recipe, write_lines
from test_pipeline_signatures import runs

from tokenmill.cli import main
from tokenmill.pipeline.dedup.config import PRESETS
from tokenmill.pipeline.dedup.probability import probability_linked


def build(folder, records, **near):
    """The decisions on some texts, by their id."""
    write_lines(folder / "in" / "a.jsonl", records)
    path = recipe(folder, dedup={"near": near}, text="drop", held_out=0.0)
    assert main(["build", str(path), "--out", str(folder / "run"), "--engine", "inline"]) == 0
    rows = ds.dataset(folder / "run" / "decisions", format="parquet").to_table().to_pylist()
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def clusters(test_data):
    """The texts of each known cluster, by an id."""
    pages = test_data / "refinedweb"
    columns = {
        path.name: pq.read_table(path, columns=["content"])["content"]
        for path in pages.glob("*.parquet")
    }
    lines = (pages / "near-duplicate-clusters.jsonl").read_text().splitlines()
    return [
        {f"{m['file']}:{m['row']}": columns[m["file"]][m["row"]].as_py() for m in members}
        for members in (json.loads(line)["members"] for line in lines)
    ]


@pytest.mark.parametrize("preset", ["default", "fineweb"])
def test_known_clusters_are_found_as_often_as_theory_says(clusters, tmp_path, preset):
    records = [{"id": id, "text": text} for texts in clusters for id, text in texts.items()]
    rows = build(tmp_path, records, preset=preset)
    found = expected = variance = 0
    for texts in clusters:
        sets = [runs(text) for text in texts.values()]
        shares = [len(one & other) / len(one | other) for one, other in combinations(sets, 2)]
        linked = 1 - prod(1 - probability_linked(share, PRESETS[preset]) for share in shares)
        expected, variance = expected + linked, variance + linked * (1 - linked)
        found += any(rows[id]["reason"] for id in texts)
    print(f"{preset}: {found} of {len(clusters)} clusters, in theory {expected:.1f}")
    assert abs(found - expected) <= 3 * sqrt(variance)


def test_datasketch_finds_as_many_pairs(tmp_path):
    records, pairs = planted_records(4, of_each=100)
    rows = build(tmp_path, records)
    index = datasketch.MinHashLSH(params=(16, 7), num_perm=112)
    sketches = {}
    for record in records:
        sketch = datasketch.MinHash(num_perm=112, seed=3)
        sketch.update_batch([" ".join(run).encode() for run in runs(record["text"])])
        sketches[record["id"]] = sketch
        index.insert(record["id"], sketch)
    for alike, of_alike in pairs.items():
        theirs = np.mean(
            [
                other in index.query(sketches[one])
                and sketches[one].jaccard(sketches[other]) >= 0.7
                for one, other in of_alike
            ]
        )
        ours = np.mean([any(rows[side]["reason"] for side in ids) for ids in of_alike])
        p = probability_linked(alike, PRESETS["default"])
        assert abs(ours - theirs) <= 5 * sqrt(2 * p * (1 - p) / len(of_alike)) + 0.01
