"""The memory of a worker does not grow with what it has milled, nor beyond its bound with what it
meets."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pipeline_runs import write_vocabulary

GIB = 1 << 30
BOUND_BYTES = 3 * GIB // 2
RULES = {
    "url": {}, "language": {}, "gopher": {}, "c4": {}, "refinedweb": {}, "fineweb": {},
}  # fmt: skip

MILL = """
import sys
from pathlib import Path
from tokenmill.pipeline.engine import InlineEngine
from tokenmill.pipeline import build
from tokenmill.recipe import load_recipe
corpus = load_recipe(Path(sys.argv[1])).corpus()
build.build(corpus, Path(sys.argv[2]), InlineEngine)
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def peak_bytes(folder: Path, name: str, documents: list[str]) -> int:
    """The largest resident memory of a process that builds these documents with every web rule."""
    source = folder / f"{name}.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    phase = {
        "max_length": 128, "row_tokens": 512,
        "loader": {"mixture": {"all": 1.0}, "batch_tokens": 512},
        "schedule": {"tokens": 1280, "learning_rate": 0.001},
    }  # fmt: skip
    recipe = {
        "name": name, "tokenizer": str(write_vocabulary(folder)),
        "sources": {"web": {"kind": "web", "path": str(source), "format": "jsonl"}},
        "filters": RULES, "edits": {"repair": {}, "pii": {}},
        "dedup": {"signatures": {}}, "packing": {"overlong": "split", "bucket_edges": [1024]},
        "phases": {"phase1": phase}, "training": {"preset": "tiny", "micro_batch_tokens": 512},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = subprocess.run(
        [sys.executable, "-c", MILL, str(path), str(folder / f"run-{name}")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1])


def prose(num_bytes: int, seed: int) -> list[str]:
    """Documents of some kilobytes in sentences; words come back, and 3 % of them are new."""
    rng = random.Random(seed)
    known = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(20_000)]
    documents = []
    while num_bytes > 0:
        words = [
            known[int(len(known) * rng.random() ** 3)] if rng.random() > 0.03
            else "".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(6, 12)))
            for _ in range(600)
        ]  # fmt: skip
        lines = [" ".join(words[i : i + 15]).capitalize() + "." for i in range(0, 600, 15)]
        documents.append("\n".join(lines))
        num_bytes -= len(documents[-1])
    return documents


def test_ten_times_the_text_takes_no_more_memory(tmp_path):
    documents = prose(4_000_000, seed=1)
    # Twice a batch, so that all buffers are there; then ten times that.
    small = peak_bytes(tmp_path, "small", documents * 4)
    rng = random.Random(2)
    large = peak_bytes(tmp_path, "large", [text[rng.randint(0, 99) :] for text in documents * 40])
    assert large < small + 100_000_000
    assert large < BOUND_BYTES


def hashes() -> str:
    digits = f"{random.Random(7).getrandbits(1 << 26):x}"
    return " ".join(digits[i : i + 16] for i in range(0, len(digits), 16))


TEXTS = {
    "30 MB of words of one letter": lambda: "a " * 15_000_000,
    "30 MB of lines of one word": lambda: "word\n" * 6_000_000,
    "one word of 30 MB": lambda: "x" * 30_000_000,
    "17 MB of hexadecimal hashes, each a new word": hashes,
    "28 MB of short words, each a new one": lambda: " ".join(f"{n:x}" for n in range(4_190_000)),
    "30 MB of Chinese in one line": lambda: "中文字" * 3_300_000,
}
"""Made when they are needed, not in every process that collects the tests."""


@pytest.mark.parametrize("kind", TEXTS)
def test_one_document_of_30_mb_stays_within_the_bound(tmp_path, kind):
    assert peak_bytes(tmp_path, "one", [TEXTS[kind]()]) < BOUND_BYTES
