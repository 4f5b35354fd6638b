import json

import numpy as np
import pytest
from tokenizer_cases import PROSE, assert_same_as_library, small_encoder

from tokenmill.errors import TokenizerError
from tokenmill.tokenizer import load_tokenizer

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


def test_word_starts_of_wordpiece_are_the_tokens_without_marks(tmp_path):
    starts = load_tokenizer(vocab_txt(tmp_path)).word_starts()
    begins = [token for token, start in zip(TOKENS, starts, strict=True) if start]
    assert begins == ["the", "mill", "Mill", ",", "e"]


def test_word_starts_of_byte_bpe_begin_with_space_or_punctuation(tmp_path):
    encoder = small_encoder("byte_bpe", tmp_path)
    starts = encoder.word_starts()
    begins = {
        "\u0120": 1,
        "\u0120on": 1,
        ",": 1,
        "\u010a": 1,
        "a": 0,
        "1": 0,
        "[CLS]": 0,
        "\xc3": 0,
    }
    for token, begin in begins.items():
        assert starts[encoder.library.token_to_id(token)] == begin, token


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
