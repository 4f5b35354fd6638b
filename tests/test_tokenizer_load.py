import json

import numpy as np
import pytest
from tokenizer_cases import PROSE, assert_same_as_library, small_encoder, with_added_tokens
from tokenizers import Tokenizer, models, processors

from tokenmill.errors import TokenizerError
from tokenmill.shards.run import BEGINS_WORD, ENDS_WORD
from tokenmill.tokenizer import Encoder, load_tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "mill", "##er", "Mill", ",", "e"]


def vocab_txt(folder, tokens=TOKENS, end="\n"):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_bytes(end.join([*tokens, ""]).encode())
    return folder


def test_a_saved_tokenizer_loads_as_itself_from_file_and_folder(tmp_path):
    encoder = small_encoder("byte_bpe", tmp_path)
    for path in [tmp_path, tmp_path / "tokenizer.json", str(tmp_path)]:
        again = load_tokenizer(path)
        assert again.sha256 == encoder.sha256
        assert again.special == encoder.special
        assert again.encode([PROSE])[0].tolist() == encoder.encode([PROSE])[0].tolist()
    assert np.load(tmp_path / "word_starts.npy").tolist() == encoder.word_starts().tolist()


def test_the_sha256_changes_with_a_token_and_not_with_the_order_of_keys(tmp_path):
    encoder = small_encoder("wordpiece", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(dict(reversed(content.items()))))
    assert load_tokenizer(file).sha256 == encoder.sha256
    content["model"]["vocab"]["new"] = 1000
    file.write_text(json.dumps(content))
    assert load_tokenizer(file).sha256 != encoder.sha256


def test_truncation_and_padding_in_the_file_are_not_obeyed(tmp_path):
    encoder = small_encoder("wordpiece", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {
        "max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    again = load_tokenizer(tmp_path)
    assert again.encode([PROSE])[0].tolist() == encoder.encode([PROSE])[0].tolist()
    assert again.sha256 == encoder.sha256


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_vocab_txt_is_berts_and_lower_cased(tmp_path, end):
    encoder = load_tokenizer(vocab_txt(tmp_path, end=end))
    assert encoder.encode(["The MILLER, \xe9"])[0].tolist() == [5, 6, 7, 9, 10]
    assert (encoder.special.prefix, encoder.special.suffix) == ((2,), (3,))
    assert encoder.special.special_ids == (0, 1, 2, 3, 4)


def test_the_config_beside_a_vocab_txt_says_whether_to_lower_case(tmp_path):
    vocab_txt(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_tokenizer(tmp_path).encode(["Mill mill"])[0].tolist() == [8, 6]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "the vocabulary is empty"),
        ([*TOKENS, "mill"], "'mill' stands on line 7 and on line 12"),
        ([*TOKENS[:3], "", "x"], "line 4 is empty"),
        (["the", "mill"], r"lacks \[UNK\]"),
    ],
)
def test_a_broken_vocab_txt_is_refused_with_its_place(tmp_path, tokens, message):
    with pytest.raises(TokenizerError, match=message) as error:
        load_tokenizer(vocab_txt(tmp_path, tokens))
    assert str(tmp_path / "vocab.txt") in str(error.value)


def test_vocab_json_and_merges_txt_are_gpt2s(tmp_path):
    encoder = small_encoder("byte_bpe", tmp_path / "first")
    model = json.loads((tmp_path / "first/tokenizer.json").read_text())["model"]
    vocabulary = {token: number for token, number in model["vocab"].items() if number > 4}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(TokenizerError, match=r"merges\.txt is missing"):
        load_tokenizer(tmp_path)
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])])
    (tmp_path / "merges.txt").write_text(merges + "\n")
    again = load_tokenizer(tmp_path)
    assert again.encode([PROSE])[0].tolist() == encoder.encode([PROSE])[0].tolist()
    with pytest.raises(TokenizerError, match=r"needs \[CLS\].*it has no") as error:
        _ = again.special
    assert "[MASK]" in str(error.value).split("it has no")[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": {"type": "WordP', "no JSON"),
        ('{"a": 1}', "no tokenizer: it has no model"),
        ('{"model": {"type": "WordPiece"}}', "no tokenizer"),
        ("[]", "no tokenizer"),
        ('"\xff"', "no JSON"),
    ],
)
def test_a_broken_tokenizer_json_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(TokenizerError, match=message) as error:
        load_tokenizer(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["[MASK]", "[SEP]", "[PAD]", "[CLS]"])
def test_a_missing_special_token_is_named_when_it_is_asked_for(tmp_path, missing):
    encoder = load_tokenizer(vocab_txt(tmp_path, [token for token in TOKENS if token != missing]))
    assert len(encoder.encode(["the mill"])[0]) == 2
    with pytest.raises(TokenizerError, match="masked pretraining needs") as error:
        _ = encoder.special
    assert f"it has no {missing}." in str(error.value)


def test_a_path_that_is_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TokenizerError, match="no such file or folder"):
        load_tokenizer(tmp_path / "nothing")
    with pytest.raises(TokenizerError, match=r"no tokenizer.json, vocab.txt, or vocab.json"):
        load_tokenizer(tmp_path)


def test_the_hub_out_of_reach_is_one_line(monkeypatch):
    from huggingface_hub import errors

    def unreachable(name, file):
        raise errors.LocalEntryNotFoundError(f"cannot reach {name}\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(TokenizerError, match="cannot reach some/model") as error:
        load_tokenizer("some/model")
    assert "\n" not in str(error.value)


CLS, SEP = ("[CLS]", 2), ("[SEP]", 3)
TEMPLATES = {
    "bert": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS),
    "nothing before": processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[SEP]
    ),
    "two after": processors.TemplateProcessing(
        single="[CLS] [CLS] $A [SEP] [CLS]",
        pair="[CLS] [CLS] $A [CLS] $B [SEP] [CLS]",
        special_tokens=[CLS, SEP],
    ),
    "one name for two ids": processors.TemplateProcessing(
        single="$A ends",
        pair="$A ends $B ends",
        special_tokens=[{"id": "ends", "ids": [3, 2], "tokens": ["[SEP]", "[CLS]"]}],
    ),
    "sequence": processors.Sequence(
        [processors.ByteLevel(), processors.RobertaProcessing(SEP, CLS, trim_offsets=False)]
    ),
}


def assert_wraps_as_library(encoder):
    """One text, and two, with the special tokens of its info are what the library encodes."""
    info, first, second = encoder.special, "the miller's", "\n12, naive [SEP] Zoe"
    one, two = (encoder.encode([text])[0].tolist() for text in (first, second))
    wrapped = [*info.prefix, *one, *info.suffix]
    assert encoder.library.encode(first).ids == wrapped
    pair = [*info.prefix, *one, *info.separator, *two, *info.suffix]
    assert encoder.library.encode(first, second).ids == pair


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_texts_get_the_special_tokens_that_the_library_puts_around_them(tmp_path, kind):
    encoder = small_encoder(kind, tmp_path)
    for name, template in TEMPLATES.items():
        encoder.library.post_processor = template
        assert_wraps_as_library(Encoder(json.loads(encoder.library.to_str()), name))


def test_without_a_template_the_usual_names_stand_around_texts(tmp_path):
    library = small_encoder("byte_bpe", tmp_path).library
    for nothing in (processors.ByteLevel(), processors.TemplateProcessing(single="$A")):
        library.post_processor = nothing
        info = Encoder(json.loads(library.to_str()), "bare").special
        assert (info.prefix, info.separator, info.suffix) == ((2,), (3,), (3,))


def test_a_template_for_one_text_has_its_end_between_two(tmp_path):
    library = small_encoder("byte_bpe", tmp_path).library
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[CLS, SEP]
    )
    assert library.encode("a", "b").ids[0] != 2
    assert Encoder(json.loads(library.to_str()), "single").special.separator == (3,)


def test_a_template_that_repeats_a_text_is_refused(tmp_path):
    library = small_encoder("byte_bpe", tmp_path).library
    library.post_processor = processors.TemplateProcessing(
        single="$A [SEP] $A", special_tokens=[SEP]
    )
    with pytest.raises(TokenizerError, match="puts tokens before and after a text; it makes"):
        _ = Encoder(json.loads(library.to_str()), "twice").special


def words_of(encoder, text):
    """The text's words as the flags of its tokens tell them."""
    ids = encoder.encode([text])[0]
    flags = encoder.word_starts()[ids]
    begins = (flags & BEGINS_WORD) != 0
    begins[1:] |= (flags[:-1] & ENDS_WORD) != 0
    begins[:1] = True
    runs = np.split(ids, np.flatnonzero(begins)[1:])
    return ["".join(encoder.library.id_to_token(number) for number in run) for run in runs]


def test_words_of_wordpiece_begin_at_the_tokens_without_marks(tmp_path):
    encoder = load_tokenizer(vocab_txt(tmp_path))
    assert words_of(encoder, "the miller,e the") == ["the", "mill##er", ",", "e", "the"]
    assert encoder.word_starts().tolist() == [3, 3, 3, 3, 3, 1, 1, 0, 1, 1, 1]


def test_words_of_byte_bpe_end_at_white_space_and_punctuation(tmp_path):
    encoder = small_encoder("byte_bpe", tmp_path)
    words = [
        "(",
        "It",
        ")",
        "\u0120said",
        ":",
        "\u010a",
        "The",
        "\u0120re",
        "-",
        "read",
        "\u0109",
        "12",
    ]
    assert words_of(encoder, "(It) said:\nThe re-read\t12") == words
    assert words_of(encoder, "\xfcber \U0001f600") == [
        "\xc3\xbcber",
        "\u0120",
        "\xf0\u0141\u013a\u0122",
    ]
    added = with_added_tokens(encoder)
    assert Encoder(added, "added").word_starts()[-13:].tolist() == [3] * 13


def test_words_of_other_vocabularies_begin_where_their_marks_say():
    vocabulary = [("\u2581the", 0.0), ("mill", 0.0), (",", 0.0), ("\u2581", 0.0), ("\xe9", 0.0)]
    unigram = Tokenizer(models.Unigram(vocabulary, 0))
    ends = {"the": 0, "mill</w>": 1, ",</w>": 2}
    suffixed = Tokenizer(models.BPE(ends, [], end_of_word_suffix="</w>"))
    flags = [Encoder(json.loads(t.to_str()), "").word_starts() for t in (unigram, suffixed)]
    assert [f.tolist() for f in flags] == [[1, 0, 3, 3, 0], [0, 2, 3]]


BROKEN = {
    "missing-unk": r"lacks \[UNK\]",
    "truncated": "no JSON",
    "not-a-tokenizer": "it has no model",
    "duplicate-rows": "stands on line",
    "crlf": "stands on line",
    "empty": "the vocabulary is empty",
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_broken_tokenizers_of_the_test_data_are_refused(test_data, name):
    with pytest.raises(TokenizerError, match=BROKEN[name]):
        load_tokenizer(test_data / "bad/tokenizers" / name)


@pytest.mark.parametrize("name", ["missing-mask", "missing-sep"])
def test_the_test_datas_tokenizers_without_a_special_token_cannot_pretrain(test_data, name):
    encoder = load_tokenizer(test_data / "bad/tokenizers" / name)
    with pytest.raises(TokenizerError, match=name.removeprefix("missing-").upper()):
        _ = encoder.special


def test_the_test_datas_id_past_16_bits_is_stored_wide(test_data):
    encoder = load_tokenizer(test_data / "bad/tokenizers/id-past-16-bits")
    assert encoder.dtype == np.uint32
    assert_same_as_library(encoder, [PROSE])


def test_berts_files_are_one_tokenizer(test_data):
    folder = test_data / "tokenizers/bert-base-uncased"
    from_json, from_text = load_tokenizer(folder), load_tokenizer(folder / "vocab.txt")
    assert from_json.encode([PROSE])[0].tolist() == from_text.encode([PROSE])[0].tolist()
    ids = from_json.special
    assert [ids.pad_id, ids.unk_id, *ids.prefix, *ids.suffix, ids.mask_id] == [0, *range(100, 104)]


@pytest.mark.parametrize("name", ["bert-base-uncased", "modernbert-base"])
def test_the_test_datas_tokenizers_wrap_texts_as_the_library(test_data, name):
    assert_wraps_as_library(load_tokenizer(test_data / "tokenizers" / name))
