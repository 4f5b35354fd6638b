import io
import json
import re
from itertools import accumulate

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from datatrove.utils.text import split_into_words
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spacy.lang import char_classes
from spacy.lang.en import English

from tokenmill.errors import TokenmillError
from tokenmill.pipeline.rules.english import EnglishSplitter
from tokenmill.pipeline.rules.english_cuts import MAX_WORD_BYTES
from tokenmill.pipeline.rules.spacy_english import english_patterns
from tokenmill.tokenizer.words import Splitter

CHARACTERS = (
    "aqQzZ4058.,:;!?'\"()[]{}<>-_/\\=+*^~#@$%&|`°…—£€éßЖжм中の한،।。\u0627\u2013\u2019\u201c\u201d"
)
STRINGS = (
    "the|Mr|km|US|can|not|cannot|don|t|'s|\u2019s|I|ll|ve|GitHub|getFooBar|HTTP|://|www|com|org|a.m."
    "|:)|:(|<3|o_O|10|127|2024|443|...|--|---|Ph|D|e.g|IS|C++|xD|\U0001f642|\u2060|\u00ad|\x00"
)
PARTS = [*CHARACTERS, *STRINGS.split("|")]
WORDS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=7).map("".join)
ADDRESSES = (
    "http:// ftp: // www. x.com a.b.co.uk .Com é.fr x.рф x.日本 _a.co a_.co -a.b a-.b"
    " : :80 :8 :123456 / ?q=1 #f @ user@ 8.8.8.8 10.0.0.1 127.0.0.1 192.168.1.1 169.254.9.9"
    " 169.25.9.9 172.16.0.1 172.32.0.1 223.255.255.254 224.1.1.1 1.2.3.0 01.2.3.4 1.256.3.4"
    " 100.1.1.1 1.1.1.1 172.1٣.1.1 \u0661.٢.٣.٤ 1.٢.3.4 . .. ( ) , 's"
)
ADDRESS_PARTS = [*ADDRESSES.split(), "y" * 64]
EXCEPTIONS = [text for text in English.Defaults.tokenizer_exceptions if not text.isspace()]
UNITS = re.sub(r"\\", "", f"{char_classes.UNITS}|{char_classes.CURRENCY}").split("|")
UNIT_PARTS = [*UNITS, *"0123456789.,)(+-°'"]
ANY_WORD = st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1)


@pytest.fixture(scope="module")
def splitter():
    return EnglishSplitter()


def documents_of(english):
    """The English words of each document, as text."""
    return [
        [english.table[number].decode() for number in ids]
        for ids in np.split(english.ids, english.ends[:-1])[: len(english)]
    ]


def split(splitter, texts):
    return documents_of(splitter.split(Splitter().split(texts)))


def test_a_text_becomes_the_words_of_spacy(splitter):
    text = 'Mr. Fox (of "GitHub") can\'t re-read 1999-2003, 5km away:\nsee www.example.com...'
    assert split(splitter, [text]) == [split_into_words(text)]
    assert split(splitter, [text])[0][:5] == ["Mr.", "Fox", "(", "of", '"']


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=30))
@example(["Mr.", "q.", "qq.", "Q.", "QQ.", "qQ.Qq", "44", "4", "444.444.444.444", "10.10.10.10"])
@example(["foo.bar", "fooBar.bazQux", "fooBar.bAz", "a.b", "ab.cd:44444", "ab.cd:444444", "ab.cde"])
@example(["x" * 63 + ".com", "x" * 70 + ".com", "www." + "y" * 80 + ".com", "x.com/" + "Z" * 300])
@example(["5km", "5kmx", "55km/h", "5qm.", "US$5", "EUS$5", "5US$", "°F.", "°G.", "20°C.", "5m²"])
@example(["I'm", "im", "Im.", "they're.", "can't!", "cant", "o'clock", "dogs'", "dog's", "QQ'S"])
def test_each_word_is_cut_as_spacy_cuts_it(splitter, words):
    assert split(splitter, words) == [split_into_words(word) for word in words]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(st.sampled_from(ADDRESS_PARTS), min_size=1, max_size=4).map("".join)))
@example(ADDRESS_PARTS)
@example(["http://a@b.co:80/x", "x@@b.co", "@b.co", "a.bc:1234567", "1.1.1.1:80/x", "8.8.8.8x"])
def test_addresses_are_words_where_they_are_to_spacy(splitter, words):
    assert split(splitter, words) == [split_into_words(word) for word in words]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.sampled_from(EXCEPTIONS), min_size=1, max_size=3).map("".join)),
    st.lists(st.lists(st.sampled_from(UNIT_PARTS), min_size=1, max_size=4).map("".join)),
)
@example(EXCEPTIONS, UNIT_PARTS)
@example([f"x-{text}-x" for text in EXCEPTIONS], [f"5{unit}." for unit in UNITS])
@example([f"({text})" for text in EXCEPTIONS], [f"55{unit}" for unit in UNITS])
def test_exceptions_and_units_are_cut_as_spacy_cuts_them(splitter, exceptions, units):
    words = exceptions + units
    assert split(splitter, words) == [split_into_words(word) for word in words]


@settings(deadline=None, max_examples=200)
@given(ANY_WORD)
def test_words_of_any_characters_are_cut_as_spacy_cuts_them(splitter, word):
    assert split(splitter, [word]) == [split_into_words(word)]


@settings(deadline=None, max_examples=50)
@given(st.lists(WORDS, max_size=20), st.sampled_from(["\n", " \u00a0", "\t", "\x1c", "\u3000\n"]))
def test_texts_become_the_words_of_spacy(splitter, words, gap):
    text = gap.join(words)
    assert split(splitter, [text, ""]) == [split_into_words(text), []]


def test_pair_ends_tell_which_words_each_pair_became(splitter):
    words = Splitter().split(["It's  sat.\u00a0", "", "on\u3000it"])
    english = splitter.split(words)
    assert english.pair_ends.tolist() == [2, 4, 4, 5, 6]
    assert english.ends.tolist() == [4, 4, 6]
    assert len(english.words.word_ids) == 5


def test_long_words_are_in_the_table_like_any_other(splitter):
    text = "(" + "x" * 1000 + ") " + "中" * 600 + "。"
    assert split(splitter, [text, text]) == [split_into_words(text)] * 2


def test_a_word_of_more_than_a_million_bytes_is_cut_at_each_million_too(splitter):
    word = "x" + "a/é" * (MAX_WORD_BYTES // 2) + "x" * MAX_WORD_BYTES
    found = split(splitter, [word])[0]
    assert "".join(found) == word
    assert found[:4] == split_into_words(word[:9])[:4]
    ends = set(accumulate(len(piece.encode()) for piece in found))
    assert {times * MAX_WORD_BYTES - 1 for times in (1, 2, 3)} <= ends


@pytest.mark.parametrize(
    "word", ["x" * 9_000_000, "中。" * 100_000, "*" * 100_000, "aé1,a.b:@" * 50_000]
)
def test_very_long_words_take_linear_time(splitter, word):
    assert "".join(split(splitter, [word])[0]) == word


def test_a_spacy_of_other_patterns_is_refused(monkeypatch):
    monkeypatch.setattr("spacy.lang.en.English.Defaults.prefixes", ["x"])
    with pytest.raises(TokenmillError, match=r"other patterns than spaCy 3\.8.*pip install"):
        english_patterns()


def test_an_exception_across_a_space_hides_another_from_spacy_but_not_here(splitter):
    # ":x" and "x." are both exceptions; spaCy takes the first, and finds it has a space in it.
    assert split_into_words("see: x.Size") == ["see", ":", "x", ".", "Size"]
    assert split(splitter, ["see: x.Size"]) == [["see", ":", "x.", "Size"]]
    assert split_into_words("(path) :].rest") == ["(", "path", ")", ":", "]", ".rest"]
    assert split(splitter, ["(path) :].rest"]) == [["(", "path", ")", ":]", ".rest"]]


def test_the_name_that_spacy_fails_on_is_a_word_like_others(splitter):
    # spaCy makes it once; then datatrove fails, or leaves it out of the whole text.
    assert split(splitter, ["IS_ALPHA is IS_ALPHA"]) == [["IS_ALPHA", "is", "IS_ALPHA"]]
    text = "token.IS_ALPHA is IS_ALPHA (IS_ALPHA) " + "IS_ALPHA," * 400
    assert "".join(split(splitter, [text])[0]) == "".join(text.split())


def test_what_was_learnt_serves_another_process(splitter, monkeypatch):
    text = "It's (GitHub's) 1999-2003, naïve: www.example.com"
    expected = split(splitter, [text])
    arrays = {name: array.copy() for name, array in splitter.arrays().items()}
    monkeypatch.setattr("tokenmill.pipeline.rules.english_cuts.english_patterns", pytest.fail)
    assert split(EnglishSplitter.from_arrays(arrays), [text]) == expected


def test_spacy_is_asked_only_when_there_are_words(monkeypatch):
    monkeypatch.setattr("tokenmill.pipeline.rules.english_cuts.english_patterns", pytest.fail)
    assert EnglishSplitter().arrays() == {}


def test_full_tables_start_anew(splitter, monkeypatch):
    monkeypatch.setattr("tokenmill.pipeline.rules.english.MAX_WORDS", 10)
    words, english = Splitter(max_words=20), EnglishSplitter()
    batches = [
        [f"It's w{number} a{number % 7}-b, c.{number}." for number in range(n)] for n in range(9)
    ]
    kept = []
    for texts in batches:
        kept.append(english.split(words.split(texts)))
        assert len(kept[-1].table) < 100
    for texts, found in zip(batches, kept, strict=True):
        assert documents_of(found) == [split_into_words(text) for text in texts]


def slice_of(test_data, name):
    """A few documents of each kind, short enough for spaCy."""
    if name == "refinedweb":
        files = sorted((test_data / name).glob("*.parquet"))
        return [
            text[:6000]
            for file in files
            for text in pq.read_table(file, columns=["content"])["content"]
            .slice(40, 40)
            .to_pylist()
        ]
    [file, *_] = sorted((test_data / name).glob("*.jsonl.zst"))
    data = io.BytesIO(file.read_bytes())
    lines = zstandard.ZstdDecompressor().stream_reader(data).read().split(b"\n")[:-1]
    documents = [json.loads(line) for line in lines[:: max(1, len(lines) // 60)]]
    return [document.get("text", document.get("content"))[:4000] for document in documents]


@pytest.mark.parametrize("name", ["refinedweb", "languages", "code"])
def test_real_texts_become_the_words_of_spacy(splitter, test_data, name):
    texts = slice_of(test_data, name)
    ours = split(splitter, texts)
    different = [
        (list(a), b)
        for text, a in zip(texts, ours, strict=True)
        if (b := split_into_words(text)) != a
    ]
    assert different == []
