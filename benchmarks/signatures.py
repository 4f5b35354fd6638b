"""MinHash signatures beside their peers, all in one process on one core.

    python benchmarks/signatures.py --data FOLDER

FOLDER holds parquet files of RefinedWeb's shape. Ours begins with words, because in the mill the
text has become words once for all that follows, or with the text. rensa is fed as its users do:
texts are lower-cased and split, five words joined, the lists given to RMinHash (one document at a
time, or a matrix of all). `sketch alone` is rensa on lists that are made before the clock starts,
and on hashes of 64 bits. datatrove's MinhashDedupSignature makes the runs with spaCy's words.
Speeds are MB of UTF-8 a second of processor time, the best of --rounds; datatrove runs once, on
less text.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from tokenmill.pipeline.signatures import SignatureConfig, minhash
from tokenmill.shards.table import table
from tokenmill.tokenizer.words import Splitter

NUM_HASHES = 112


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of parquet files")
    parser.add_argument("--column", default="content", help="the column that holds the text")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    arrays = [
        pq.read_table(file, columns=[arguments.column]).column(0).combine_chunks()
        for file in sorted(arguments.data.glob("*.parquet"))
    ]
    speeds = ours(arrays, arguments.rounds) | peers(arrays[-1], arguments.rounds)
    theirs = (speeds["rensa, a document at a time"], speeds["datatrove"])
    rows = [
        (name, f"{speed:.1f}", *(f"{speed / their:.1f}x" for their in theirs))
        for name, speed in speeds.items()
    ]
    print(table(("112 entries of runs of 5 words", "MB/s", "of rensa's", "of datatrove's"), rows))


def ours(arrays: list[pa.Array], rounds: int) -> dict[str, float]:
    """The last file after the others (`steady`), and again (`warm`)."""
    config = SignatureConfig(num_hashes=NUM_HASHES)
    minhash(Splitter().split(arrays[0][:64]), config)  # numba compiles, or reads its cache
    last = arrays[-1]
    hashing, splitting = [], []
    for _ in range(rounds):
        splitter = Splitter()
        for array in arrays[:-1]:
            minhash(splitter.split(array), config)
        splitting.append(seconds(lambda splitter=splitter: splitter.split(last)))
        words = splitter.split(last)
        hashing.append(seconds(lambda words=words: minhash(words, config)))
    warm = min(seconds(lambda: minhash(words, config)) for _ in range(rounds))
    both = min(a + b for a, b in zip(hashing, splitting, strict=True))
    return {
        "ours, of words, steady": megabytes(last) / min(hashing),
        "ours, of words, warm": megabytes(last) / warm,
        "ours, of text, steady": megabytes(last) / both,
    }


def peers(texts: pa.Array, rounds: int) -> dict[str, float]:
    """What others make of a sample of the same file."""
    import rensa
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    sample = texts.take(pa.array(np.arange(0, len(texts), 4)))
    strings = sample.to_pylist()
    lists = [runs(text) for text in strings]
    hashes = rensa.RMinHash.hash_token_sets(lists)

    def one_by_one() -> None:
        for text in strings:
            sketch = rensa.RMinHash(num_perm=NUM_HASHES, seed=1)
            sketch.update(runs(text))
            sketch.digest()

    of_lists = rensa.RMinHash.digest_matrix_from_token_sets
    of_hashes = rensa.RMinHash.digest_matrix_from_token_hash_sets
    work: dict[str, Callable[[], object]] = {
        "rensa, a document at a time": one_by_one,
        "rensa, all at once": lambda: of_lists([runs(t) for t in strings], NUM_HASHES, 1),
        "rensa, sketch alone, of strings": lambda: of_lists(lists, NUM_HASHES, 1),
        "rensa, sketch alone, of hashes": lambda: of_hashes(hashes, NUM_HASHES, 1),
    }
    speeds = {
        name: megabytes(sample) / min(seconds(function) for _ in range(rounds))
        for name, function in work.items()
    }
    small = sample.take(pa.array(np.arange(0, len(sample), 4)))
    block = MinhashDedupSignature("none", MinhashConfig(num_buckets=14, hashes_per_bucket=8))
    # Its own passes a str, which xxhash 4 refuses.
    block._hash_func = lambda data: xxhash.xxh64_intdigest(data.encode())
    block.get_signature(block.get_shingles("The first one loads spaCy, and its words are few."))
    spent = seconds(
        lambda: [block.get_signature(block.get_shingles(text)) for text in small.to_pylist()]
    )
    return speeds | {"datatrove": megabytes(small) / spent}


def runs(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def seconds(work: Callable[[], object]) -> float:
    """Of processor time: other work on the machine counts less."""
    start = time.process_time()
    work()
    return time.process_time() - start


def megabytes(texts: pa.Array) -> float:
    return float(pc.sum(pc.binary_length(texts)).as_py()) / 1e6


if __name__ == "__main__":
    main()
