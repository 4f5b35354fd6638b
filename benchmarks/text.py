"""The text half of the mill beside its peers, all in one process on one core.

    python benchmarks/text.py --data FOLDER --tokenizer FILE --json text.json

FOLDER holds parquet files of RefinedWeb's shape. `cold` is all files from an empty table, `steady`
the last file after the others, `warm` the last file again (a ceiling: nothing in it is new). Peers
get a sample of the last file, as Python strings, made before the clock starts; ours gets Arrow
arrays. Speeds are MB of UTF-8 a second of processor time, the best of --rounds, each from an empty
table; datatrove and the whole mill run once.
"""

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokenmill.pipeline.assets import asset_hashes
from tokenmill.pipeline.build import mill_tasks
from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.dedup.config import DedupConfig
from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.examine import Examiner
from tokenmill.pipeline.fetch.in_turn import DownloadConfig
from tokenmill.pipeline.fetch.listing import list_source
from tokenmill.pipeline.filters import FilterConfig
from tokenmill.pipeline.identify import identify, identify_tasks, input_files
from tokenmill.pipeline.mill import mill
from tokenmill.pipeline.pack import PackingConfig
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.rules.c4 import C4Rule
from tokenmill.pipeline.rules.fineweb import FineWebRule
from tokenmill.pipeline.rules.gopher import GopherRule
from tokenmill.pipeline.rules.language import Language, LanguageRule, model_path
from tokenmill.pipeline.signatures import SignatureConfig, minhash
from tokenmill.pipeline.sources import Columns, SourceConfig
from tokenmill.shards.table import table
from tokenmill.tokenizer import load_tokenizer
from tokenmill.tokenizer.words import Splitter

WEB_RULES = {"gopher": GopherRule(), "c4": C4Rule(), "fineweb": FineWebRule()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of parquet files")
    parser.add_argument("--tokenizer", required=True, help="a tokenizer.json")
    parser.add_argument("--column", default="content", help="the column that holds the text")
    parser.add_argument("--sample-mb", type=float, default=1.5, help="text for the slow peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files = sorted(arguments.data.glob("*.parquet"))
    texts = [pq.read_table(file, columns=[arguments.column]).column(0) for file in files]
    arrays = [column.combine_chunks().cast(pa.large_string()) for column in texts]
    bench = Bench(arrays, arguments.tokenizer, arguments.sample_mb, arguments.rounds)
    rows = [*bench.tokens(), *bench.rules(), *bench.language(), *bench.signatures()]
    rows += whole_mill(arguments.data, arguments.column, arguments.tokenizer)
    header = ("what", "who", "MB/s", "times")
    print(table(header, [(what, who, f"{speed:.2f}", times(rows, what, speed))
                         for what, who, speed in rows]))  # fmt: skip
    if arguments.json:
        figures = [{"what": what, "who": who, "mb_per_second": speed} for what, who, speed in rows]
        about = {
            "date": str(date.today()),
            "processor": _processor(),
            "python": platform.python_version(),
        }
        arguments.json.write_text(json.dumps({**about, "figures": figures}, indent=1))


Row = tuple[str, str, float]


class Bench:
    """The parts of the mill on arrays of text."""

    def __init__(
        self, arrays: list[pa.Array], tokenizer: str, sample_mb: float, rounds: int
    ) -> None:
        self.arrays, self.tokenizer, self.rounds = arrays, tokenizer, rounds
        last = arrays[-1]
        step = max(1, int(megabytes(last) / sample_mb))
        self.small = last.take(pa.array(np.arange(0, len(last), step)))
        self.sample = last.take(pa.array(np.arange(0, len(last), max(1, step // 4))))
        # numba compiles, or reads its cache, before any clock starts.
        load_tokenizer(tokenizer).encode(last[:8])

    def best(self, texts: pa.Array, work: Callable[[], object]) -> float:
        return megabytes(texts) / min(seconds(work) for _ in range(self.rounds))

    def steady(self, what: str, work: Callable[[], list[float]], of: str = "") -> Iterator[Row]:
        """The speeds of some work that begins anew and tells how long it took with each file."""
        rounds = [work() for _ in range(self.rounds)]
        last = min(spent[-1] for spent in rounds)
        yield what, f"ours, steady{of}", megabytes(self.arrays[-1]) / last
        yield what, f"ours, cold{of}", sum(map(megabytes, self.arrays)) / min(map(sum, rounds))

    def tokens(self) -> Iterator[Row]:
        encoder = load_tokenizer(self.tokenizer)
        library = encoder.library
        strings = self.sample.to_pylist()
        yield (
            "tokens",
            "tokenizers",
            self.best(
                self.sample, lambda: library.encode_batch_fast(strings, add_special_tokens=False)
            ),
        )
        import tokie

        other = tokie.Tokenizer.from_json(str(self.tokenizer))
        yield (
            "tokens",
            "tokie",
            self.best(
                self.sample, lambda: other.encode_batch_flat(strings, add_special_tokens=False)
            ),
        )
        encoders = []

        def encode_all() -> list[float]:
            encoders.append(load_tokenizer(self.tokenizer))
            return [
                seconds(lambda array=array: encoders[-1].encode(array)) for array in self.arrays
            ]

        yield from self.steady("tokens", encode_all)
        warm = self.best(self.arrays[-1], lambda: encoders[-1].encode(self.arrays[-1]))
        yield "tokens", "ours, warm", warm

    def rules(self) -> Iterator[Row]:
        from datatrove.data import Document
        from datatrove.pipeline.filters import (
            C4QualityFilter,
            FineWebQualityFilter,
            GopherQualityFilter,
            GopherRepetitionFilter,
        )

        chain = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(),
                 FineWebQualityFilter()]  # fmt: skip
        chain[1].filter(Document("The first one loads spaCy.", "0"))

        def datatrove(stop: bool) -> None:
            for number, text in enumerate(self.small.to_pylist()):
                document = Document(text, str(number))
                for block in chain:
                    kept = block.filter(document)
                    if stop and kept is not True:
                        break

        with warnings.catch_warnings(action="ignore"):
            yield (
                "English web rules",
                "datatrove, until one drops a document",
                (megabytes(self.small) / seconds(lambda: datatrove(True))),
            )
            yield (
                "English web rules",
                "datatrove, all four on every document",
                (megabytes(self.small) / seconds(lambda: datatrove(False))),
            )
        yield from self._examined()

    def language(self) -> Iterator[Row]:
        import fasttext

        model = fasttext.load_model(str(model_path("lid.176")))
        strings = [text.replace("\n", " ") for text in self.sample.to_pylist()]
        yield (
            "language",
            "fastText",
            self.best(self.sample, lambda: [model.predict(text) for text in strings]),
        )
        Language(LanguageRule()).measure(Splitter().split(self.arrays[0][:64]))

        def measure_all(with_splitting: bool) -> list[float]:
            language, splitter, spent = Language(LanguageRule()), Splitter(), []
            for array in self.arrays:
                split = seconds(lambda array=array: splitter.split(array))
                words = splitter.split(array)
                measured = seconds(lambda words=words: language.measure(words))
                spent.append(measured + split * with_splitting)
            return spent

        yield from self.steady("language", lambda: measure_all(False), " (of words)")
        yield from self.steady("language", lambda: measure_all(True), " (with splitting)")

    def _examined(self) -> Iterator[Row]:
        """Our speed with these rules, splitting into words and storing signals included."""
        filters = FilterConfig(**WEB_RULES)
        warm_up = Examiner(filters, EditConfig(), "web", Splitter().split)
        warm_up.examine(documents(self.arrays[0][:64]))

        def examine_all() -> list[float]:
            examiner = Examiner(filters, EditConfig(), "web", Splitter().split)
            return [
                sum(seconds(lambda part=part: examiner.examine(part)) for part in batches(array))
                for array in self.arrays
            ]

        yield from self.steady("English web rules", examine_all)

    def signatures(self) -> Iterator[Row]:
        words = Splitter().split(self.arrays[-1])
        config = SignatureConfig()
        minhash(words, config)
        yield (
            "MinHash, 112 of known words",
            "ours, warm",
            self.best(self.arrays[-1], lambda: minhash(words, config)),
        )


def whole_mill(data: Path, column: str, tokenizer: str) -> Iterator[Row]:
    """Parquet in; words, language, rules, signatures, tokens, text and decisions out."""
    source = SourceConfig(
        kind="web", path=str(data), format="parquet", columns=Columns(text=column, url="url")
    )
    corpus = Corpus(
        name="benchmark",
        sources={"web": source},
        tokenizer=tokenizer,
        filters=FilterConfig(language=LanguageRule(), **WEB_RULES),
        edits=EditConfig(),
        dedup=DedupConfig(signatures=SignatureConfig()),
        decontamination=None,
        retracted=(),
        downloads=DownloadConfig(),
        packing=PackingConfig(),
        text="keep",
        held_out=0.0,
        shapes=(),
        phases={},
        training={},
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        encoder = load_tokenizer(tokenizer)
        encoder.save(run / "tokenizer")
        files = [
            file
            for task in identify_tasks(run, "web", list_source("web", source))
            for file in input_files(task, identify(task))
        ]
        units, _ = plan_units("web", source, files)
        tasks = mill_tasks(
            corpus, run, units, encoder.special, asset_hashes(corpus.filters, corpus.edits)
        )
        receipts = []
        spent = [seconds(lambda task=task: receipts.append(mill(task))) for task in tasks]
        sizes = [receipt.counts["bytes"] / 1e6 for receipt in receipts]
    yield "whole mill", "ours, steady", sizes[-1] / spent[-1]
    yield "whole mill", "ours, cold", sum(sizes) / sum(spent)


def documents(texts: pa.Array) -> Documents:
    empty = pa.nulls(len(texts), pa.string())
    numbers = np.arange(len(texts))
    return Documents(texts, numbers.astype(np.uint64), numbers, *[empty] * 5)


def batches(texts: pa.Array) -> Iterator[Documents]:
    """As a reader gives them: some MB each."""
    step = max(1, int(len(texts) * 8 / megabytes(texts)))
    for start in range(0, len(texts), step):
        yield documents(texts.slice(start, step))


def times(rows: list[Row], what: str, speed: float) -> str:
    """How many times the first one of its kind."""
    first = next(row for row in rows if row[0] == what)
    return "" if first[1].startswith("ours") else f"{speed / first[2]:.1f}x"


def seconds(work: Callable[[], object]) -> float:
    """Of processor time: other work on the machine counts less."""
    start = time.process_time()
    work()
    return time.process_time() - start


def megabytes(texts: pa.Array) -> float:
    return float(pc.sum(pc.binary_length(texts)).as_py()) / 1e6


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "unknown")


if __name__ == "__main__":
    main()
