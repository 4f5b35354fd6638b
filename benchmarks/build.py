"""`tokenmill build` against datatrove's DocumentTokenizer alone, on the same files, one after the
other.

    python benchmarks/build.py --data FOLDER --tokenizer FOLDER_OR_FILE [--rounds 3] [--json
    out.json]

FOLDER holds RefinedWeb-shaped parquet. Ours is the whole command: Ray's start, hashes, tokens,
decisions, text, duplicates, and the packed shards of NeoBERT's two phases. Theirs reads and
tokenizes, with a worker for each core, and stops there. Both are whole processes, in turns;
numba's cache is warm, because a first build is left out.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenmill.shards.listing import read_listing
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.table import table

RECIPE = Path(__file__).parent.parent / "manifests" / "neobert.yaml"

DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer

data, tokenizer, out, workers = sys.argv[1:]
LocalPipelineExecutor(
    pipeline=[
        ParquetReader(data, text_key="content", glob_pattern="*.parquet"),
        DocumentTokenizer(out + "/tokens", tokenizer_name_or_path=tokenizer, save_filename="web"),
    ],
    tasks=int(sys.argv[4]) * 3,
    workers=int(workers),
    logging_dir=out + "/log",
).run()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    file = arguments.tokenizer
    file = file / "tokenizer.json" if file.is_dir() else file
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        build(arguments, top / "warm")
        ours, theirs = [], []
        for number in range(arguments.rounds):
            ours.append(build(arguments, top / f"ours-{number}"))
            theirs.append(datatrove(arguments.data, file, top / f"theirs-{number}", cores))
        figures = {
            "cores": cores,
            "machine": platform.processor() or platform.machine(),
            "text_mb": text_bytes(top / "ours-0") / 1e6,
            "tokenmill_build_seconds": ours,
            "datatrove_document_tokenizer_seconds": theirs,
            "ratio_of_medians": median(theirs) / median(ours),
            "largest_padding": largest_padding(top / "ours-0"),
            "root": read_listing(top / "ours-0").root,
        }
    print(f"{figures['text_mb']:.0f} MB of text, {cores} cores, seconds as min, median, max")
    print(
        table(
            ("", "min", "median", "max"),
            [
                ("tokenmill build", *spread(ours)),
                ("datatrove DocumentTokenizer", *spread(theirs)),
            ],
        )
    )
    print(f"datatrove / tokenmill  {figures['ratio_of_medians']:.2f}")
    print(f"largest padding of a bucket  {figures['largest_padding']:.3%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def build(arguments: argparse.Namespace, run: Path) -> float:
    """Seconds of one build, process start to end."""
    words = ["build", RECIPE, "--out", run]
    words += ["--set", f"sources.refinedweb.path={arguments.data}"]
    words += ["--set", f"tokenizer={arguments.tokenizer}"]
    return timed([sys.executable, "-m", "tokenmill", *map(str, words)])


def datatrove(data: Path, tokenizer: Path, out: Path, cores: int) -> float:
    """Seconds of datatrove's tokenizer over the same files, process start to end."""
    seconds = timed([sys.executable, "-c", DATATROVE, *map(str, (data, tokenizer, out, cores))])
    done = list((out / "tokens").glob("*.ds"))
    assert done, "datatrove wrote no tokens"
    shutil.rmtree(out)
    return seconds


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def text_bytes(run: Path) -> int:
    receipts = (run / "receipts" / "mill").rglob("*.json")
    return sum(json.loads(path.read_text())["counts"]["bytes"] for path in receipts)


def largest_padding(run: Path) -> float:
    """Of the training rows of any bucket of any pack."""
    shares = []
    for folder in (run / "shards").iterdir():
        manifest = read_manifest(folder)
        for bucket in {shard.bucket for shard in manifest.shards}:
            shards = manifest.of_bucket(bucket)
            room = sum(shard.rows for shard in shards) * manifest.row_tokens
            if room:
                shares.append(1 - sum(shard.real_tokens for shard in shards) / room)
    return max(shares)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def spread(values: list[float]) -> tuple[str, str, str]:
    return f"{min(values):.1f}", f"{median(values):.1f}", f"{max(values):.1f}"


if __name__ == "__main__":
    main()
