"""Workers leave what they have learnt to later ones; no result depends on it."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_runs import make_texts, prepare, write_vocabulary

from tokenmill.cli import main
from tokenmill.pipeline import mill
from tokenmill.pipeline.learnt import keep_english, keep_words, known_english, known_words
from tokenmill.pipeline.rules.english import EnglishSplitter
from tokenmill.shards.listing import read_listing
from tokenmill.tokenizer import load_tokenizer
from tokenmill.tokenizer.words import Splitter

TEXTS = [*make_texts(50), "It's 10km from Dr. Müller's mill (re-opened in 1990).", "a\u00a0b don't"]
RULES = {"gopher": {}, "c4": {}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def learnt(tmp_path, tokenizer):
    """A run whose first worker has met TEXTS."""
    encoder, english = load_tokenizer(tokenizer), EnglishSplitter()
    english.split(encoder.split(TEXTS))
    keep_words(tmp_path, encoder.words)
    keep_english(tmp_path, english)
    return tmp_path


def test_a_later_worker_starts_with_the_words_of_an_earlier_one(learnt, tokenizer):
    words = known_words(learnt)
    known = len(words)
    encoder = load_tokenizer(tokenizer)
    encoder.adopt(words)
    encoder.encode(TEXTS)
    assert len(encoder.words) == known > 20


def test_a_later_worker_does_without_spacy(learnt, tokenizer, monkeypatch):
    import tokenmill.pipeline.rules.english_cuts as cuts

    expected = EnglishSplitter().split(Splitter().split(TEXTS))
    english = known_english(learnt)
    monkeypatch.setattr(cuts, "english_patterns", None)
    again = english.split(Splitter().split(TEXTS))
    words = [[split.table[number] for number in split.ids] for split in (expected, again)]
    assert words[0] == words[1]
    assert np.array_equal(expected.ends, again.ends)


@settings(max_examples=30)
@given(st.lists(st.text(), max_size=5))
def test_tokens_are_the_same_with_and_without_what_was_learnt(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("learnt")
    tokenizer = write_vocabulary(folder)
    first = load_tokenizer(tokenizer)
    first.encode(TEXTS)
    keep_words(folder, first.words)
    later = load_tokenizer(tokenizer)
    later.adopt(known_words(folder))
    fresh = load_tokenizer(tokenizer)
    for ours, theirs in zip(later.encode(texts + TEXTS), fresh.encode(texts + TEXTS), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_worker_that_knows_little_more_leaves_the_file_alone(learnt, tokenizer):
    (path,) = (learnt / "words").glob("words-*")
    before = path.stat().st_mtime_ns
    encoder = load_tokenizer(tokenizer)
    encoder.adopt(known_words(learnt))
    encoder.encode(["one new word"])
    keep_words(learnt, encoder.words)
    assert path.stat().st_mtime_ns == before
    encoder.encode([" ".join(f"word{number}" for number in range(40_000))])
    keep_words(learnt, encoder.words)
    assert path.stat().st_mtime_ns > before
    assert len(known_words(learnt)) == len(encoder.words)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_damaged_files_are_as_good_as_none_and_written_over(learnt, damage):
    for path in (learnt / "words").iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert known_words(learnt) is None
    splitter = known_english(learnt)
    splitter.split(Splitter().split(TEXTS))
    keep_english(learnt, splitter)
    assert known_english(learnt).arrays().keys() == splitter.arrays().keys()


def test_a_build_by_workers_that_know_the_words_has_the_same_root(tmp_path, monkeypatch):
    recipe = prepare(tmp_path, filters=RULES)
    run = tmp_path / "run"
    arguments = ["build", str(recipe), "--out", str(run), "--engine", "inline"]
    assert main(arguments) == 1
    root = read_listing(run).root
    assert len(list((run / "words").iterdir())) == 2
    mill._encoder.cache_clear()  # a new worker
    for receipt in (run / "receipts" / "mill").rglob("*.json"):
        receipt.unlink()
    assert main(arguments) == 1
    assert read_listing(run).root == root


def test_workers_that_write_at_once_leave_a_whole_file(learnt):
    program = (
        "import sys; from pathlib import Path\n"
        "from tokenmill.pipeline.learnt import keep_words, known_words\n"
        "from tokenmill.tokenizer.words import Splitter\n"
        "splitter = Splitter()\n"
        "for size in range(1, 40):\n"
        "    splitter.split([' '.join(f'{sys.argv[2]}{n}' for n in range(size * 2000))])\n"
        "    keep_words(Path(sys.argv[1]), splitter.words)\n"
        "    assert known_words(Path(sys.argv[1])) is not None\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(learnt), name]) for name in ("a", "b")
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
