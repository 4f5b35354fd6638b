"""What two extractors keep and leave out of pages that people have marked.

    python benchmarks/extraction_quality.py --data FOLDER --gold gold-segments.jsonl

FOLDER holds WARC files with the pages; a line of the gold file has a page's `url`, segments that
its text `must_contain` and segments that it `must_not_contain`. As in trafilatura's evaluation, a
segment that must be there and is counts as a true positive, one that must not be and is as a false
one.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecordType

from tokenmill.pipeline.extract.child import Outcome, extract
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.shards.table import table

CONFIGS = {
    "resiliparse, main content": ExtractionConfig(),
    "resiliparse, with comments": ExtractionConfig(comments=True),
    "resiliparse, all text": ExtractionConfig(main_content=False, comments=True),
    "trafilatura, precision": ExtractionConfig(extractor="trafilatura", favour="precision"),
    "trafilatura": ExtractionConfig(extractor="trafilatura"),
    "trafilatura, recall": ExtractionConfig(extractor="trafilatura", favour="recall"),
}


class Marks(NamedTuple):
    """Segments of all pages, by whether they should be in the text and are."""

    true_positives: int = 0
    false_negatives: int = 0
    false_positives: int = 0
    true_negatives: int = 0

    @property
    def precision(self) -> float:
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return self.true_positives / (self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def accuracy(self) -> float:
        return (self.true_positives + self.true_negatives) / sum(self)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of WARC files")
    parser.add_argument("--gold", type=Path, required=True, help="a jsonl file of marked pages")
    arguments = parser.parse_args()
    gold = [json.loads(line) for line in arguments.gold.read_text().splitlines()]
    blocks = dict(responses(arguments.data, {page["url"] for page in gold}))
    missing = [page["url"] for page in gold if page["url"] not in blocks]
    if missing:
        parser.error(f"{arguments.data} has no page {missing[0]}")
    rows = []
    for name, config in CONFIGS.items():
        extract(blocks[gold[0]["url"]], config, 1 << 26)  # its library is loaded
        start = time.process_time()
        texts = {url: text_of(block, config) for url, block in blocks.items()}
        seconds = time.process_time() - start
        marks = judge(gold, texts)
        characters = sum(map(len, texts.values())) / len(texts)
        rows.append((name, f"{marks.precision:.3f}", f"{marks.recall:.3f}", f"{marks.f1:.3f}",
                     f"{marks.accuracy:.3f}", f"{characters:,.0f}",
                     f"{len(texts) / seconds:,.0f}"))  # fmt: skip
    print(f"{len(gold)} pages, {sum(judge(gold, {}))} segments")
    print(table(("extractor", "precision", "recall", "F1", "accuracy", "characters a page",
                 "pages/s"), rows))  # fmt: skip


def responses(folder: Path, urls: set[str]) -> Iterator[tuple[str, bytes]]:
    """The wanted pages as the server sent them."""
    for path in sorted(folder.glob("*.warc*")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(
                stream, record_types=WarcRecordType.response, parse_http=False
            ):
                url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
                if url in urls:
                    yield url, record.reader.read()


def text_of(block: bytes, config: ExtractionConfig) -> str:
    outcome, text = extract(block, config, 1 << 26)
    assert outcome is Outcome.TEXT, text
    return text


def judge(gold: list[dict[str, list[str]]], texts: dict[str, str]) -> Marks:
    """All segments of all pages; of a page without a text none is there."""
    counts = [0, 0, 0, 0]
    for page in gold:
        text = texts.get(str(page["url"]), "")
        for segment in page["must_contain"]:
            counts[0 if segment in text else 1] += 1
        for segment in page["must_not_contain"]:
            counts[2 if segment in text else 3] += 1
    return Marks(*counts)


if __name__ == "__main__":
    main()
