"""Exported folders load with transformers alone and give our logits; and the way back."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from exported_runs import YARN, exported, trained, word_tokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader import TorchBatch
from tokenmill.tokenizer.encoder import Encoder
from tokenmill.tokenizer.train import TokenizerTrainingConfig, train_tokenizer
from tokenmill.training.config import TrainingConfig
from tokenmill.training.encoder_config import EncoderConfig, RopeConfig
from tokenmill.training.export import export
from tokenmill.training.hf.architecture import architecture_of, from_config
from tokenmill.training.hf.read import read_hugging_face, start_from
from tokenmill.training.model import build_model
from tokenmill.training.presets import PRESETS

LOCAL = {"window": 4}
EXTENDED = {"theta": 160_000.0, "local_theta": 10_000.0}
LENGTHS = (5, 24, 17)
"""Of three sequences, longer than the window of local layers."""
TEXTS = ["Cells divide; w7 in the dark.", "  na\u00efve  \u65e5\u672c\n\n x=1;"]
SENTENCES = ["w1 w2 w3", "w4 w1 w90 w17 w2 w40 w41 w42"]


def packed(config: EncoderConfig, sequences: Sequence[Tensor] | None = None) -> TorchBatch:
    """Sequences in a run, all of whose tokens are asked for; if none are given, three with
    segments."""
    generator = torch.Generator().manual_seed(0)
    segments = None
    if sequences is None:
        sequences = [torch.randint(5, 100, (length,), generator=generator) for length in LENGTHS]
        segments = torch.randint(2, (sum(LENGTHS),), generator=generator)
    ids, lengths = torch.cat(list(sequences)), [len(sequence) for sequence in sequences]
    total = len(ids)
    return TorchBatch(
        step=0,
        micro_batch=0,
        num_micro_batches=1,
        input_ids=ids,
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        cu_seqlens=torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32),
        max_length=max(lengths),
        masked_positions=torch.arange(total),
        targets=ids.clone(),
        doc_ids=torch.zeros(len(lengths), dtype=torch.int64),
        row_weights=torch.ones(1),
        num_tokens=total,
        step_targets=total,
        step_pairs=len(lengths),
        pad_id=config.pad_id,
        segment_ids=segments if config.segments == 2 else None,
        next_sentence=torch.zeros(len(lengths), dtype=torch.int64),
    )


def padded(batch: TorchBatch) -> dict[str, Tensor]:
    """The same sequences one a line, as transformers takes them."""

    def lines(tokens: Tensor, fill: int) -> Tensor:
        parts = tokens.split(LENGTHS)
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill)

    inputs = {
        "input_ids": lines(batch.input_ids, batch.pad_id),
        "attention_mask": lines(torch.ones_like(batch.input_ids), 0),
    }
    if batch.segment_ids is not None:
        inputs["token_type_ids"] = lines(batch.segment_ids, 0)
    return inputs


ALL_BIASES = {"norm_bias": True, "linear_bias": True, "head_bias": True}
SHAPES = {
    "neobert": ("neobert", {}, {}, "NeoBertForMaskedLM"),
    "neobert stretched": ("neobert", {}, YARN, "NeoBertForMaskedLM"),
    "tiny": ("tiny", {}, {}, "NeoBertForMaskedLM"),
    "modernbert": ("modernbert-base", LOCAL, EXTENDED, "ModernBertForMaskedLM"),
    "modernbert stretched": (
        "modernbert-base",
        {**LOCAL, **ALL_BIASES},
        YARN,
        "ModernBertForMaskedLM",
    ),
    "bert": ("bert-base", {"max_positions": 30}, {}, "BertForMaskedLM"),
    "roberta": ("roberta-base", {"max_positions": 32}, {}, "RobertaForMaskedLM"),
    # Its positions begin at row 2, and transformers' class for RoBERTa would begin at row 1.
    "roberta of a tokenizer with [PAD] first": (
        "roberta-base",
        {"max_positions": 32},
        {},
        "BertForMaskedLM",
    ),
}
"""Preset, changes to its shape, the phase's positions, and the class that transformers takes."""


ELSEWHERE = """
import json, sys
sys.modules["tokenmill"] = None  # an import of it fails
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, BertForPreTraining,
)
top, trust = Path(sys.argv[1]), {"trust_remote_code": True}
jobs = json.loads((top / "jobs.json").read_text())
tensors, facts = {}, {"classes": {}, "tokens": {}}

def load(kind, name, **more):
    model, found = kind.from_pretrained(
        top / name / "model", output_loading_info=True, **trust, **more)
    return model.eval(), sorted([*found["missing_keys"], *found["mismatched_keys"]])

for name in jobs["logits"]:
    model, missing = load(AutoModelForMaskedLM, name)
    facts["classes"][name] = [type(model).__name__, missing]
    inputs = load_file(top / name / "inputs")
    logits = model(**inputs, labels=inputs["input_ids"]).logits
    tensors[f"logits {name}"] = logits[inputs["attention_mask"].bool()]
    model.save_pretrained(top / name / "again")
    again = AutoModelForMaskedLM.from_pretrained(top / name / "again", **trust).eval()
    assert torch.equal(again(**inputs).logits, logits), f"{name}, saved again"
model, missing = load(BertForPreTraining, "bert")
assert not missing
tensors["next"] = model(**load_file(top / "bert" / "inputs")).seq_relationship_logits
for name in jobs["embeddings"]:
    model = SentenceTransformer(str(top / name / "model"), device="cpu", **trust)
    tensors[f"embeddings {name}"] = torch.from_numpy(model.encode(jobs["sentences"]))
model, _ = load(AutoModelForSequenceClassification, "neobert", num_labels=3)
tokenizer = AutoTokenizer.from_pretrained(top / "neobert" / "model", **trust)
inputs = tokenizer(jobs["sentences"], padding=True, return_tensors="pt")
model(**inputs, labels=torch.tensor([0, 2])).loss.backward()
tensors["gradient"] = model.model.encoder.weight.grad
for name, texts in jobs["tokens"].items():
    tokenizer = AutoTokenizer.from_pretrained(top / name / "model", **trust)
    facts["tokens"][name] = [dict(tokenizer(*text)) for text in texts]
    special = ("pad", "mask", "cls", "sep", "unk")
    facts["tokens"][name].append([getattr(tokenizer, f"{kind}_token_id") for kind in special])
    facts["tokens"][name].append(tokenizer.model_max_length)
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, top / "tensors")
(top / "facts.json").write_text(json.dumps(facts))
"""


def trained_tokenizer(kind: str, folder: Path) -> Encoder:
    config = TokenizerTrainingConfig(kind=kind, vocab_size=300, min_frequency=1)
    return train_tokenizer([pa.array(TEXTS)], config, folder)


@torch.no_grad()
def test_transformers_gives_our_numbers_where_tokenmill_is_not(tmp_path):
    """One process for all, because it takes seconds to import what it needs."""
    models = {}
    for name, (preset, changes, rope, _) in SHAPES.items():
        models[name] = trained(
            tmp_path / name,
            preset,
            changes,
            encoder=word_tokenizer(padding=int(name == "roberta")),
            phase_rope={"phase": rope},
        )
        save_file(padded(packed(models[name].config)), tmp_path / name / "inputs")
    encoders = {
        "wordpiece": ("neobert", trained_tokenizer("wordpiece", tmp_path / "1")),
        "byte_bpe": ("roberta-base", trained_tokenizer("byte_bpe", tmp_path / "2")),
        "words": ("bert-base", word_tokenizer()),
    }
    for name, (preset, encoder) in encoders.items():
        trained(tmp_path / name, preset, {"width": 4, "heads": 1, "hidden": 4}, encoder=encoder)
    for name in (*models, *encoders):
        export(tmp_path / name / "training", tmp_path / name / "model")
    embedded = ("neobert", "modernbert", "bert")
    jobs = {
        "logits": list(models),
        "embeddings": embedded,
        "sentences": SENTENCES,
        "tokens": {name: [[text] for text in TEXTS] + [TEXTS] for name in encoders},
    }
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tmp_path],
        cwd=tmp_path, env={**os.environ, **home}, check=True,
    )  # fmt: skip
    theirs = load_file(tmp_path / "tensors")
    facts = json.loads((tmp_path / "facts.json").read_text())

    for name, model in models.items():
        batch = packed(model.config)
        ours = model(batch)
        assert facts["classes"][name] == [SHAPES[name][3], []]
        assert_near(theirs[f"logits {name}"], ours.logits, name)
        # And the way back gives our very weights.
        config, state = read_hugging_face(tmp_path / name / "model")
        back = build_model(config, "cpu").eval()
        back.load_state_dict(state)
        assert torch.equal(back(batch).logits, ours.logits)
        if name == "bert":
            # There, class 0 is "goes on with the first text" (google-research/bert).
            assert_near(theirs["next"].flip(1), ours.next_sentence, "next sentences")
    for name in embedded:
        batch = packed(models[name].config, [ids_of(text) for text in SENTENCES])
        vectors = models[name].encoder(batch).split(np.diff(batch.cu_seqlens).tolist())
        means = torch.stack([vector.mean(dim=0) for vector in vectors])
        assert_near(theirs[f"embeddings {name}"], means, f"embeddings of {name}")
    assert theirs["gradient"][ids_of("w90")].abs().min() > 0
    for name, (preset, encoder) in encoders.items():
        assert facts["tokens"][name] == expected_tokens(encoder, segments=preset == "bert-base")


def assert_near(theirs: Tensor, ours: Tensor, what: str) -> None:
    torch.testing.assert_close(
        theirs, ours, atol=1e-5, rtol=0, msg=lambda message: f"{what}: {message}"
    )


def ids_of(text: str) -> Tensor:
    """Words of word_tokenizer with [CLS] and [SEP]."""
    encoder = word_tokenizer()
    ids = encoder.encode(pa.array([text]))[0].tolist()
    return torch.tensor([*encoder.special.prefix, *ids, *encoder.special.suffix])


def expected_tokens(encoder: Encoder, *, segments: bool) -> list[object]:
    """What a tokenizer must give for each of TEXTS, for the pair of them, and of itself."""
    info = encoder.special
    one, two = ([*map(int, encoder.encode(pa.array([text]))[0])] for text in TEXTS)
    answers: list[object] = []
    for first, second in (
        ([*info.prefix, *one, *info.suffix], []),
        ([*info.prefix, *two, *info.suffix], []),
        ([*info.prefix, *one, *info.separator], [*two, *info.suffix]),
    ):
        ids = first + second
        answer = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if segments:
            answer["token_type_ids"] = [0] * len(first) + [1] * len(second)
        answers.append(answer)
    special = [info.pad_id, info.mask_id, info.prefix[0], info.suffix[0], info.unk_id]
    return [*answers, special, 24]


def test_training_starts_from_a_folder_of_its_own_shape(tmp_path):
    folder = exported(tmp_path)
    config, state = read_hugging_face(folder)
    model = build_model(replace(config, rope=RopeConfig(theta=5e4)), "cpu")
    start_from(model, folder)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    for change in ({"hidden": 56}, {"norm_eps": 1e-6}, {"vocab_size": 128}):
        (field,) = change
        with pytest.raises(RecipeError, match=f"has {field} {getattr(config, field)}, and the"):
            start_from(build_model(replace(config, **change), "cpu"), folder)


def test_weights_begin_in_one_way_only():
    with pytest.raises(RecipeError, match="initial_weights: tile_from is set too"):
        TrainingConfig(
            preset="tiny", micro_batch_tokens=64, tile_from=Path("a"), initial_weights=Path("b")
        )


def test_weights_that_do_not_fit_are_named(tmp_path):
    folder = exported(tmp_path, "bert-base")
    tensors = {name: x.clone() for name, x in load_file(folder / "model.safetensors").items()}
    lost = tensors.pop("cls.predictions.bias")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FormatError, match=r"cls\.predictions\.bias: missing"):
        read_hugging_face(folder)
    more = {"cls.predictions.bias": lost, "bert.adapter.weight": lost.clone()}
    save_file(tensors | more, folder / "model.safetensors")
    with pytest.raises(FormatError, match=r"bert\.adapter\.weight: a weight that"):
        read_hugging_face(folder)


PUBLISHED = {
    "modernbert-base": {  # answerdotai/ModernBERT-base, of transformers 4
        "model_type": "modernbert", "vocab_size": 50368, "hidden_size": 768,
        "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152,
        "pad_token_id": 50283, "norm_eps": 1e-05, "norm_bias": False, "attention_bias": False,
        "mlp_bias": False, "classifier_bias": False, "global_attn_every_n_layers": 3,
        "local_attention": 128, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
    },
    "bert-base": {  # google-bert/bert-base-uncased, which holds both heads
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 30522,
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "pad_token_id": 0, "max_position_embeddings": 512,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    },
    "roberta-base": {  # FacebookAI/roberta-base
        "model_type": "roberta", "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "pad_token_id": 1,
        "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-05,
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_configurations_are_the_presets(preset):
    config = from_config(PUBLISHED[preset], "config.json")
    rope = RopeConfig(theta=160_000.0, local_theta=10_000.0) if "modern" in preset else RopeConfig()
    expected = replace(PRESETS[preset], rope=rope, dropout=0.0, attention_dropout=None)
    assert replace(config, next_sentence=expected.next_sentence) == expected


@pytest.mark.parametrize(
    ("preset", "change", "reason"),
    [
        ("bert-base", {"hidden_act": "relu"}, "hidden_act is relu, ours is gelu"),
        ("bert-base", {"tie_word_embeddings": False}, "tie_word_embeddings is false"),
        ("modernbert-base", {"mlp_bias": True}, "attention_bias and mlp_bias differ"),
        ("modernbert-base", {"layer_types": ["full_attention"] * 22}, "layer_types is not one"),
        ("bert-base", {"model_type": "deberta"}, "expected model_type neobert"),
    ],
)
def test_a_published_model_that_ours_cannot_be_is_refused(preset, change, reason):
    with pytest.raises(FormatError, match=rf"config\.json: .*{reason}"):
        from_config(PUBLISHED[preset] | change, "config.json")


def test_the_published_neobert_is_read(tmp_path):
    folder = exported(tmp_path)
    expected, _ = read_hugging_face(folder)
    content = json.loads((folder / "config.json").read_text())
    del content["rope_parameters"]
    content["intermediate_size"] = 72  # it counts 3/2 of the width inside
    (folder / "config.json").write_text(json.dumps(content))
    assert read_hugging_face(folder)[0] == expected


@pytest.mark.parametrize(
    ("preset", "change"),
    [
        ("neobert", {"tied": True}),
        ("neobert", {"global_every": 2, "window": 8}),
        ("modernbert-base", {"feed_forward": "swiglu"}),
        ("modernbert-base", {"first_attention_norm": True}),
        ("bert-base", {"norm_place": "before"}),
    ],
)
def test_a_shape_that_no_class_has_is_refused_by_its_field(preset, change):
    (field, value), *_ = change.items()
    theirs = getattr(PRESETS[preset], field)
    with pytest.raises(RecipeError, match=rf"which has {field} {theirs}, not {value}\.$"):
        architecture_of(replace(PRESETS[preset], **change))


def test_learned_positions_need_a_table_of_segments():
    with pytest.raises(RecipeError, match=r"segments: 0 cannot be exported; a roberta of"):
        architecture_of(replace(PRESETS["roberta-base"], segments=0))


def test_all_fields_of_such_a_shape_are_named():
    nomic = {"positions": "rotary-half", "max_positions": 0, "feed_forward": "swiglu"}
    with pytest.raises(
        RecipeError,
        match=r"rotary-half the nearest is modernbert, which has segments 0, not 2; .*"
        r"norm_place before, not after; .*feed_forward geglu, not swiglu",
    ):
        architecture_of(replace(PRESETS["bert-base"], **nomic))
