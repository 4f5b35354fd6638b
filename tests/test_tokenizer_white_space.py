import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.white_space import split_at_white_space
from tokenmill.tokenizer.words import Splitter

SPACES = [chr(point) for point in range(0x110000) if chr(point).isspace()]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from([*SPACES, "a", "b"]))


def words_of(words):
    """The words of each document, as text."""
    texts, first = [], 0
    for end in words.ends:
        texts.append([_text(words, number) for number in words.word_ids[first:end]])
        first = end
    return texts


def _text(words, number):
    if number < LONG:
        return words.words[number].decode()
    start, stop = words.long_words[number & LONG_INDEX]
    return words.data[start:stop].tobytes().decode()


def split(texts):
    words = split_at_white_space(Splitter().split(texts))
    found = words_of(words)
    for pieces in found:
        assert "" not in pieces[:-1]
    return words, [[piece for piece in pieces if piece] for pieces in found]


def test_a_no_break_space_ends_a_word():
    words, pieces = split(["a\u00a0 b", "c d"])
    assert pieces == [["a", "b"], ["c", "d"]]
    assert [words.gaps[number].decode() for number in words.gap_ids] == ["", "\u00a0 ", "", " "]
    assert words.join().to_pylist() == ["a\u00a0 b", "c d"]


@settings(deadline=None)
@given(st.lists(ANY_TEXT))
@example(SPACES)
@example(["x" * 257 + "\u2003" + "y" * 300 + "\x1c" + "z", "\u00a0" * 200 + "y" * 256 + "\u3000"])
@example(["\u3000" * 100, "w" * 300, "a\u1680b", "\u200b\u180e\ufeff\u2060"])
def test_words_are_those_of_str_split_and_the_text_comes_back(texts):
    words, pieces = split(texts)
    assert pieces == [text.split() for text in texts]
    assert words.join().to_pylist() == texts


def test_words_without_such_white_space_come_back_as_they_are():
    words = Splitter().split(["The cat\n\tsat.", "", "x" * 300])
    assert split_at_white_space(words) is words


def test_words_are_split_only_once():
    words = split_at_white_space(Splitter().split(["a\u00a0b", "c"]))
    assert split_at_white_space(words) is words


def test_documents_without_such_white_space_keep_their_pairs():
    texts = ["The cat " + "x" * 300, "a\u2009b" + "y" * 400 + "\u2028" + "z" * 500, " sat."]
    narrow = Splitter().split(texts)
    wide = split_at_white_space(narrow)
    assert wide.word_ids[:3].tolist() == narrow.word_ids[:3].tolist()
    assert wide.word_ids[-1] == narrow.word_ids[-1]
    assert words_of(wide) == [text.split() for text in texts]


def test_a_full_table_grows_while_it_is_cut():
    text = "\u00a0".join(f"w{number}" for number in range(20_000))
    words, pieces = split([text])
    assert pieces == [text.split()]
    assert words.join()[0].as_py() == text


def test_a_word_of_30_mb_is_cut():
    text = "x" * 15_000_000 + "\u3000" + "y" * 15_000_000
    words, _ = split([text])
    assert np.diff(words.long_words[1:], axis=1).tolist() == [[15_000_000]] * 2
    assert words.join()[0].as_py() == text


@pytest.mark.parametrize("part", range(2))
def test_words_of_web_text_are_those_of_str_split(test_data, part):
    file = sorted((test_data / "refinedweb").glob("*.parquet"))[part]
    texts = pq.read_table(file, columns=["content"])["content"].to_pylist()[:400]
    words, pieces = split(texts)
    assert pieces == [text.split() for text in texts]
    assert words.join().to_pylist() == texts
