"""What decontamination finds in the test data, for each tokenizer, and how fast.

    python benchmarks/decontamination.py $TOKENMILL_TEST_DATA

The evaluation sets are looked for in planted documents (recall by how the item was put in, and
untouched documents that are found) and in the RefinedWeb-shaped files (recall of the known
overlaps, and other documents found). Common phrases count here as anything else. Speed is that of
the scan, in million tokens a second of processor time.
"""

import argparse
import json
import time
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tokenmill.pipeline.decontaminate.index import RunIndex, build_index
from tokenmill.pipeline.decontaminate.judge import Found, Hits, judge_hits
from tokenmill.pipeline.decontaminate.scan import find_hits
from tokenmill.pipeline.decontaminate.words import TokenTable
from tokenmill.shards.table import table
from tokenmill.tokenizer import load_tokenizer

SETS = ("arc_challenge", "boolq", "copa", "openbookqa", "piqa")
TOKENIZERS = ("bert-base-uncased", "modernbert-base", "gpt-neox-olmo-dolma-v1_5", "gpt2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of test data")
    data: Path = parser.parse_args().data
    items = [row for name in SETS for row in read_lines(data / "eval" / f"{name}.jsonl")]
    number = {(item["task"], item["id"]): index for index, item in enumerate(items)}
    with zstandard.open(data / "eval" / "planted-documents.jsonl.zst", "rt") as lines:
        planted = [json.loads(line) for line in lines]
    files = sorted((data / "refinedweb").glob("*.parquet"))
    web = [pq.read_table(file, columns=["content"])["content"] for file in files]
    starts = dict(zip((f.name for f in files), accumulate([0, *map(len, web)]), strict=False))
    known = {
        (starts[row["file"]] + row["row"], number[row["task"], row["id"]])
        for row in read_lines(data / "eval" / "known-overlaps.jsonl")
    }
    planted_at = {
        (place, number[row["task"], row["eval_id"]]): row["how"]
        for place, row in enumerate(planted)
        if row["contaminated"]
    }
    results = []
    for name in TOKENIZERS:
        encoder = load_tokenizer(data / "tokenizers" / name)
        ready = build_index([item["text"] for item in items], encoder, 13, 8)
        found, _ = search(encoder, *ready, pa.array([row["text"] for row in planted]))
        pairs = set(zip(found.doc_ids.tolist(), found.items.tolist(), strict=True))
        recall = Counter(how for pair, how in planted_at.items() if pair in pairs)
        untouched = {place for place, _ in pairs if not planted[place]["contaminated"]}
        texts = pa.concat_arrays([chunk for column in web for chunk in column.chunks])
        in_web, speed = search(encoder, *ready, texts)
        web_pairs = set(zip(in_web.doc_ids.tolist(), in_web.items.tolist(), strict=True))
        others = {document for document, _ in web_pairs} - {document for document, _ in known}
        totals = Counter(planted_at.values())
        results.append(
            (name, *(f"{recall[how]}/{totals[how]}" for how in sorted(totals)),
             str(len(untouched)), f"{len(known & web_pairs)}/{len(known)}", str(len(others)),
             f"{speed:.0f}")
        )  # fmt: skip
    kinds = sorted(set(planted_at.values()))
    print(table(("tokenizer", *kinds, "untouched", "overlaps", "others", "M tokens/s"), results))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def search(
    encoder: Any, tokens_of: TokenTable, index: RunIndex, texts: pa.Array
) -> tuple[Found, float]:
    """What documents hold of items, and the scan's speed in million tokens a second."""
    ids, ends = encoder.encode(texts)
    bounds = np.concatenate([[0], ends])
    find_hits(tokens_of, index, ids, bounds[:2])  # numba compiles, or reads its cache
    start = time.process_time()
    hits = find_hits(tokens_of, index, ids, bounds)
    speed = len(ids) / (time.process_time() - start) / 1e6
    rows = Hits(
        hits.documents.astype(np.uint64),
        np.diff(bounds)[hits.documents],
        *(column.astype(np.int64) for column in hits[1:]),
    )
    found, _ = judge_hits(rows, index, np.zeros(len(rows.runs), np.bool_), 0.0)
    return found, speed


if __name__ == "__main__":
    main()
