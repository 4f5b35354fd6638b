import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_cases import (
    HARD_PARTS,
    PROSE,
    assert_same_as_library,
    hard_texts,
    pair_encoder,
    small_encoder,
    with_added_tokens,
)
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tokenmill.errors import TokenizerError
from tokenmill.tokenizer import Encoder, load_tokenizer

KINDS = ["wordpiece", "byte_bpe"]
PUBLISHED = ["bert-base-uncased", "gpt2", "gpt-neox-olmo-dolma-v1_5", "modernbert-base"]


@pytest.fixture(scope="session", params=[*KINDS, "pairs"])
def encoder(request, tmp_path_factory):
    if request.param == "pairs":
        return pair_encoder()
    return small_encoder(request.param, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session", params=PUBLISHED)
def published(request, test_data):
    return load_tokenizer(test_data / "tokenizers" / request.param)


def test_hard_texts_get_the_ids_of_the_library(encoder):
    assert encoder.fallback is None
    assert_same_as_library(encoder, hard_texts(2000, seed=2))
    assert_same_as_library(encoder, [PROSE, "", PROSE.upper(), " " + PROSE])


@given(st.lists(st.lists(st.sampled_from(HARD_PARTS)).map("".join) | st.text(), max_size=5))
@settings(deadline=None)
def test_any_text_gets_the_ids_of_the_library(encoder, texts):
    assert_same_as_library(encoder, texts)


def test_added_tokens_are_found_in_words_and_gaps(encoder):
    added = Encoder(with_added_tokens(encoder), "with added tokens")
    assert added.fallback is None
    ids, _ = added.encode(["see |||IP||| or x[unused0]y"])
    assert added.library.token_to_id("|||IP|||") in ids
    assert added.library.token_to_id("[unused0]") in ids
    assert_same_as_library(added, hard_texts(2000, seed=3))


def test_special_tokens_in_a_text_are_text(encoder):
    ids, _ = encoder.encode(["[MASK] [CLS]x[SEP] [PAD]"])
    assert not set(ids.tolist()) & {0, 2, 3, 4}
    assert_same_as_library(encoder, ["[MASK] [CLS]x[SEP] [PAD]"])


def test_the_answers_do_not_depend_on_what_was_seen_before(encoder):
    texts = hard_texts(400, seed=4)
    settings = json.loads(encoder.library.to_str())
    forgetful = Encoder(settings, "forgetful", max_words=20)
    for start in range(0, len(texts), 7):
        part = texts[start : start + 7]
        assert forgetful.encode(part)[0].tolist() == encoder.encode(part)[0].tolist()


def test_a_long_batch_is_worked_off_in_slices(encoder, monkeypatch):
    texts = hard_texts(200, seed=5)
    ids, ends = encoder.encode(texts)
    monkeypatch.setattr("tokenmill.tokenizer.encoder.SLICE_BYTES", 100)
    sliced, sliced_ends = encoder.encode(pa.array(texts))
    assert sliced.tolist() == ids.tolist()
    assert sliced_ends.tolist() == ends.tolist()


def test_a_batch_of_nothing_has_no_tokens(encoder):
    for texts in ([], pa.array([], pa.string()), ["", ""]):
        ids, ends = encoder.encode(texts)
        assert len(ids) == 0
        assert ids.dtype == np.uint16
        assert ends.tolist() == [0] * len(texts)


def test_split_words_encode_like_their_texts(encoder):
    texts = hard_texts(200, seed=6)
    ids, ends = encoder.encode_words(encoder.split(texts))
    assert ids.tolist() == encoder.encode(texts)[0].tolist()
    assert ends.tolist() == encoder.encode(texts)[1].tolist()


def test_an_interrupted_batch_leaves_no_unit_without_tokens(tmp_path, monkeypatch):
    encoder = small_encoder("wordpiece", tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tokenmill.tokenizer.wordpiece.WordPiece.encode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            encoder.encode([PROSE])
    assert_same_as_library(encoder, [PROSE])


def test_the_guard_passes_what_is_right_and_names_what_is_wrong(tmp_path, monkeypatch):
    encoder = small_encoder("wordpiece", tmp_path)
    texts = ["the miller", "and so on", "the daughter"]
    encoder.check(texts)
    encoder.encode(texts)
    right = encoder.encode_words
    monkeypatch.setattr(
        encoder, "encode_words", lambda words: (right(words)[0] + 1, right(words)[1])
    )
    message = r"document 0 of the sample, token 0: the tokenizers library gives \[\d+.*, ours \[\d+"
    with pytest.raises(TokenizerError, match=message):
        encoder.check(texts)


def unigram():
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581a", -1.0), ("b", -2.0)], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def byte_bpe(**changes):
    letters = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(letters, [], dropout=changes.get("dropout")))
    options = changes.get("byte_level", {"add_prefix_space": False})
    tokenizer.pre_tokenizer = changes.get("pre_tokenizer", pre_tokenizers.ByteLevel(**options))
    if "normalizer" in changes:
        tokenizer.normalizer = changes["normalizer"]
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(changes.get("added", []))
    return tokenizer


def added(content, **options):
    from tokenizers import AddedToken

    return [AddedToken(content, **options)]


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (unigram(), "its model is Unigram"),
        (byte_bpe(dropout=0.1), "it drops merges at random"),
        (byte_bpe(byte_level={"add_prefix_space": True}), "it puts a space before each text"),
        (byte_bpe(normalizer=normalizers.NFKC()), "its normalizer is NFKC, not NFC"),
        (
            byte_bpe(pre_tokenizer=pre_tokenizers.Split(" ", "isolated")),
            "its pre-tokenizer is Split, not ByteLevel",
        ),
        (byte_bpe(added=added("<a>", rstrip=True)), "takes white space around it"),
        (byte_bpe(added=added("<a b>")), "mixes white space and text"),
        (byte_bpe(added=added("\xa0")), "mixes white space and text"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_tokenizer_without_units_goes_to_the_library_and_says_why(tokenizer, reason):
    encoder = Encoder(json.loads(tokenizer.to_str()), "other")
    assert reason in encoder.fallback
    if "random" not in reason:
        assert_same_as_library(encoder, ["a b  <a b> <a> \xa0c", "", PROSE])


@pytest.mark.parametrize(
    "change",
    [
        {"lowercase": False},
        {"strip_accents": False},
        {"handle_chinese_chars": False},
        {"clean_text": False},
    ],
    ids=str,
)
def test_each_setting_of_the_bert_normalizer_is_served(tmp_path, change):
    settings = json.loads(small_encoder("wordpiece", tmp_path).library.to_str())
    settings["normalizer"] |= change
    encoder = Encoder(settings, "changed")
    assert encoder.fallback is None
    assert_same_as_library(encoder, hard_texts(500, seed=7))


def test_ids_past_16_bits_are_stored_in_32(tmp_path):
    settings = json.loads(small_encoder("wordpiece", tmp_path).library.to_str())
    settings["model"]["vocab"]["\u4f60"] = 70_000
    encoder = Encoder(settings, "wide")
    assert encoder.vocab_size == 70_001
    ids, _ = encoder.encode(["\u4f60"])
    assert ids.dtype == np.uint32
    assert ids.tolist() == [70_000]


def test_published_tokenizers_give_the_ids_of_the_library_on_hard_texts(published):
    assert published.fallback is None
    assert_same_as_library(published, hard_texts(1500, seed=8))


def test_published_tokenizers_give_the_ids_of_the_library_on_real_text(published, test_data):
    assert_same_as_library(published, some_real_texts(test_data))


def test_every_character_keeps_its_tokens_before_and_after_a_gap(published):
    """One in 16 of all characters a run; white space and controls every time."""
    points = [*range(0x100), *range(0x2000, 0x2070), *range(0x100, 0x30000, 61)]
    characters = [chr(point) for point in points if not 0xD800 <= point < 0xE000]
    assert_same_as_library(
        published, [f"x{character}  y {character}\n a{character}b" for character in characters]
    )


def some_real_texts(test_data):
    """Web, code, science, many languages, and a file of hard Unicode: some 2 MB."""
    web = pq.read_table(sorted((test_data / "refinedweb").glob("*.parquet"))[0])
    code = pq.read_table(sorted((test_data / "code").glob("*.parquet"))[0])
    texts = web.column("content")[:200].to_pylist() + code.column("content")[:60].to_pylist()
    for file, count in [
        (test_data / "languages/declaration-of-human-rights.jsonl.zst", 30),
        (sorted((test_data / "science/jsonl").iterdir())[0], 5),
        (test_data / "bad/jsonl/unicode.jsonl", 100),
    ]:
        lines = [line for line in read(file).split(b"\n") if line.strip()]
        step = max(1, len(lines) // count)
        texts += [json.loads(line)["text"] for line in lines[::step]]
    return texts


def read(file):
    if file.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(file.read_bytes())).read()
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
