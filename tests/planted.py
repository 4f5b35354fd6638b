"""Texts of which each pair shares a known part of its runs of five words."""

import json
from pathlib import Path

import numpy as np
import yaml
from pipeline_runs import write_vocabulary

RUN_WORDS = 5


def random_words(rng, number):
    """So many that five in a row hardly come again."""
    return rng.integers(0, 20_000, number).astype(str)


def pair(rng, *, num_runs, shared):
    """Two texts of so many runs, of which the first so many are the same and no others."""
    length = num_runs + RUN_WORDS - 1
    words = random_words(rng, 2 * length)
    one, other = words[:length], words[length:]
    same = shared + RUN_WORDS - 1 if shared else 0
    return " ".join(one), " ".join([*one[:same], *other[same:]])


PLANTED = {0.9: (190, 180), 0.8: (180, 160), 0.5: (180, 120), 0.45: (145, 90)}
"""Runs of each text, and how many of them both have, for a similarity."""


def write_lines(path: Path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def recipe(folder: Path, **changes) -> Path:
    """A recipe over all .jsonl files of folder/in, with url and dump."""
    phase = {
        "max_length": 64, "row_tokens": 1024,
        "loader": {"mixture": {"all": 1.0}, "batch_tokens": 1024},
        "schedule": {"tokens": 1280, "learning_rate": 0.001},
    }  # fmt: skip
    web = {
        "kind": "web", "path": str(folder / "in"), "format": "jsonl",
        "columns": {"url": "url", "dump": "dump", "id": "id"},
    }  # fmt: skip
    settings = {
        "name": "planted", "tokenizer": str(write_vocabulary(folder)), "sources": {"web": web},
        "phases": {"phase1": phase}, "training": {"preset": "tiny", "micro_batch_tokens": 1024},
        **changes,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def planted_records(seed, *, of_each):
    """(records, pairs): the pairs of PLANTED in a shuffled order, their ids by similarity."""
    rng = np.random.default_rng(seed)
    records, pairs = [], {}
    for alike, (num_runs, shared) in PLANTED.items():
        for number in range(of_each):
            ids = [f"{alike}-{number}-{side}" for side in "ab"]
            texts = pair(rng, num_runs=num_runs, shared=shared)
            records += [{"id": id, "text": text} for id, text in zip(ids, texts, strict=True)]
            pairs.setdefault(alike, []).append(tuple(ids))
    rng.shuffle(records)
    return records, pairs
