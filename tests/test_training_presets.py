"""The presets: the published numbers of parameters, and what a recipe may change."""

import pytest
from small_models import KINDS

from tokenmill.errors import RecipeError
from tokenmill.training.model import build_model, num_parameters
from tokenmill.training.presets import PRESETS, encoder_config

# Encoder, and with its head; of BERT and RoBERTa the encoder counts a pooler. Sources: the released
# checkpoints, and transformers' models of the same settings.
COUNTS = {
    "neobert": (221_665_536, 245_136_954),
    "modernbert-base": (149_014_272, 149_655_232),
    "modernbert-large": (394_781_696, 395_881_664),
    "ettin-17m": (16_797_440, 16_913_600),
    "ettin-32m": (31_883_136, 32_081_344),
    "ettin-68m": (68_144_640, 68_457_664),
    "ettin-150m": (149_014_272, 149_655_232),
    "ettin-400m": (394_781_696, 395_881_664),
    "ettin-1b": (1_028_050_688, 1_031_314_112),
    "bert-base": (109_482_240, 110_106_428),
    "bert-large": (335_141_888, 336_226_108),
    "roberta-base": (124_645_632, 124_697_433),
    "roberta-large": (355_359_744, 355_412_057),
    "tiny": (1_444_480, 2_501_248),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_exactly_the_published_parameters(preset):
    config = encoder_config(preset)
    model = build_model(config)
    pooler = config.width * (config.width + 1) if config.positions == "learned" else 0
    assert num_parameters(model.encoder) + pooler == COUNTS[preset][0]
    assert num_parameters(model) == COUNTS[preset][1]
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    ("preset", "count"), [("bert-base", 109_514_298), ("bert-large", 335_174_458)]
)
def test_bert_without_the_next_sentence_head_has_its_masked_language_models_parameters(
    preset, count
):
    assert num_parameters(build_model(encoder_config(preset, {"next_sentence": False}))) == count


def test_a_tied_decoder_is_the_embedding_itself_and_neoberts_is_its_own():
    assert "decoder.weight" not in build_model(KINDS["modernbert"]).state_dict()
    assert len(build_model(encoder_config("neobert")).state_dict()) == 172


def test_a_recipe_may_round_the_tokenizers_vocabulary_up_and_not_down():
    config = encoder_config("tiny", {"vocab_size": 128}, vocab_size=100)
    assert config.vocab_size == 128
    with pytest.raises(RecipeError, match="vocab_size: expected at least the tokenizer's 100"):
        encoder_config("tiny", {"vocab_size": 64}, vocab_size=100)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"preset: .*-large, tiny, found nebert\. Did you "):
        encoder_config("nebert")
