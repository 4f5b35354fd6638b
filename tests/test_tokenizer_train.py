import pyarrow as pa
import pytest
from tokenizer_cases import PROSE, assert_same_as_library, hard_texts

from tokenmill.errors import RecipeError, TokenizerError
from tokenmill.tokenizer import TokenizerTrainingConfig, train_tokenizer

TEXTS = [*PROSE.splitlines(), *hard_texts(200, seed=9)]


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_the_same_texts_give_the_same_tokenizer_in_any_batches(tmp_path, kind):
    config = TokenizerTrainingConfig(kind=kind, vocab_size=500, max_characters=50)
    whole = train_tokenizer([pa.array(TEXTS)], config, tmp_path)
    shas = {whole.sha256}
    for cut in [1, 40, len(TEXTS) - 1]:
        batches = [pa.array(TEXTS[cut:]), pa.array(TEXTS[:cut])]
        shas.add(train_tokenizer(batches, config, tmp_path).sha256)
    assert len(shas) == 1
    assert whole.vocab_size <= 500


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_a_trained_tokenizer_has_what_masked_pretraining_needs(tmp_path, kind):
    config = TokenizerTrainingConfig(kind=kind, vocab_size=500)
    encoder = train_tokenizer([pa.array(TEXTS)], config, tmp_path)
    ids = encoder.special
    assert (ids.pad_id, ids.unk_id, *ids.prefix, *ids.suffix, ids.mask_id) == (0, 1, 2, 3, 4)
    assert ids.special_ids == (0, 1, 2, 3, 4)
    assert encoder.library.encode("mill").ids[0] == 2
    assert encoder.library.encode("mill").ids[-1] == 3
    assert encoder.fallback is None
    assert_same_as_library(encoder, TEXTS)


def test_lowercase_is_wordpieces_choice(tmp_path):
    texts = [pa.array(["Mill mill MILL"] * 3)]
    lower = TokenizerTrainingConfig(vocab_size=40)
    kept = TokenizerTrainingConfig(vocab_size=40, lowercase=False)
    assert len(set(train_tokenizer(texts, lower, tmp_path).encode(["mill Mill"])[0])) == 1
    assert len(set(train_tokenizer(texts, kept, tmp_path).encode(["mill Mill"])[0])) > 1


def test_only_the_most_frequent_characters_get_a_token(tmp_path):
    config = TokenizerTrainingConfig(vocab_size=40, max_characters=2)
    encoder = train_tokenizer([pa.array(["aa aa bb c"])], config, tmp_path)
    unknown = encoder.special.unk_id
    assert encoder.encode(["c"])[0].tolist() == [unknown]
    assert unknown not in encoder.encode(["aa bb"])[0]


def test_texts_without_a_word_are_refused(tmp_path):
    with pytest.raises(TokenizerError, match="no word in the texts"):
        train_tokenizer([pa.array(["", " \n"])], TokenizerTrainingConfig(vocab_size=40), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 5}, "vocab_size: need at least 6 for wordpiece, got 5"),
        ({"kind": "byte_bpe", "vocab_size": 260}, "at least 261 for byte_bpe, got 260"),
        ({"vocab_size": 40, "min_frequency": 0}, "min_frequency: need at least 1, got 0"),
        ({"vocab_size": 40, "max_characters": 0}, "max_characters: need at least 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        TokenizerTrainingConfig(**changes)
