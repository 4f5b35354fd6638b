"""Encoding speed beside the `tokenizers` library, both in this process on one core.

    python benchmarks/tokens.py TOKENIZER FILE.parquet...

cold: all files from an empty table. steady: the last file after the others. warm: the last again.
The library encodes a sample of the last file. Speeds are MB of UTF-8 a second of processor time;
the texts are in Arrow for ours, Python strings for the library.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tokenmill.tokenizer import load_tokenizer

SAMPLE_DOCUMENTS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", help="a file or a folder")
    parser.add_argument("files", nargs="+", type=Path, help="parquet files")
    parser.add_argument("--column", default="content", help="the column that holds the text")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = [pq.read_table(file, columns=[arguments.column]) for file in arguments.files]
    arrays = [pa.concat_arrays(table.column(0).chunks) for table in texts]

    load_tokenizer(arguments.tokenizer).encode(arrays[0][:8])  # numba compiles, or reads its cache
    encoder = load_tokenizer(arguments.tokenizer)
    sample = arrays[-1][:: max(1, len(arrays[-1]) // SAMPLE_DOCUMENTS)]
    strings = sample.to_pylist()
    library = encoder.library
    seconds = [measure(lambda array=array: encoder.encode(array)) for array in arrays]
    sizes = [megabytes(array) for array in arrays]
    speeds = {
        "tokenizers": megabytes(sample)
        / measure(lambda: library.encode_batch_fast(strings, add_special_tokens=False)),
        "cold": sum(sizes) / sum(seconds),
        "steady": sizes[-1] / seconds[-1],
        "warm": sizes[-1] / measure(lambda: encoder.encode(arrays[-1])),
        "splitting alone": sizes[-1] / measure(lambda: encoder.split(arrays[-1])),
    }
    for name, speed in speeds.items():
        print(f"{name:16} {speed:7.1f} MB/s  {speed / speeds['tokenizers']:6.1f} x tokenizers")


def measure(work: Callable[[], object]) -> float:
    """Seconds of processor time that it takes: other work on the machine counts less."""
    start = time.process_time()
    work()
    return time.process_time() - start


def megabytes(texts: pa.Array) -> float:
    return float(pa.compute.sum(pa.compute.binary_length(texts)).as_py()) / 1e6


if __name__ == "__main__":
    main()
