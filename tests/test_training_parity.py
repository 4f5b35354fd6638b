"""The same weights give the logits of transformers' models, and train alike; packed here, one
sequence a time there.

NeoBERT has no class in transformers: test_training_model.py compares a layer with its code's steps,
test_training_hugging_face.py the whole model with the modelling file that goes into the folder.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from model_batches import make_batch
from torch import nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from tokenmill.training.config import TrainingConfig
from tokenmill.training.encoder_config import RopeConfig
from tokenmill.training.hf.weights import to_hugging_face
from tokenmill.training.loss import batch_loss
from tokenmill.training.model import build_model
from tokenmill.training.optim import build_optimizers
from tokenmill.training.presets import encoder_config

VOCAB, LENGTHS = 60, [40, 1, 7]
SMALL = {"vocab_size": VOCAB, "width": 32, "heads": 4, "hidden": 48, "layers": 4, "pad_id": 0}
THEIRS = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48,
    "num_hidden_layers": 4, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
YARN = RopeConfig(theta=160_000.0, local_theta=10_000.0, yarn_factor=4, original_length=8)


def modernbert(rope):
    ours = encoder_config("modernbert-base", {**SMALL, "window": 5})
    full = {"rope_type": "default", "rope_theta": rope.theta}
    if rope.yarn_factor > 1:
        full |= {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    local = {"rope_type": "default", "rope_theta": 10_000.0}
    config = ModernBertConfig(
        **THEIRS, cls_token_id=None, sep_token_id=None, local_attention=10,
        max_position_embeddings=40,
        rope_parameters={"full_attention": full, "sliding_attention": local},
    )  # fmt: skip
    return replace(ours, rope=rope), ModernBertForMaskedLM(config)


def bert():
    ours = encoder_config("bert-base", {**SMALL, "max_positions": 40})
    theirs = BertConfig(**THEIRS, max_position_embeddings=40)
    return ours, BertForPreTraining(theirs)


def roberta():
    ours = encoder_config("roberta-base", {**SMALL, "max_positions": 41, "first_position": 1})
    theirs = RobertaConfig(
        **THEIRS, max_position_embeddings=41, type_vocab_size=1, layer_norm_eps=1e-5
    )
    return ours, RobertaForMaskedLM(theirs)


FAMILIES = pytest.mark.parametrize(
    "make", [lambda: modernbert(RopeConfig()), lambda: modernbert(YARN), bert, roberta],
    ids=["modernbert", "modernbert-yarn", "bert", "roberta"],
)  # fmt: skip


def with_the_same_weights(make):
    """Our model and theirs, without dropout; and our configuration."""
    config, theirs = make()
    ours = build_model(config, "cpu").eval()
    torch.manual_seed(0)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, 0.0 if parameter.dim() == 2 else 0.5, 0.3)
    tied = theirs.load_state_dict(to_hugging_face(ours.state_dict(), config), strict=False)
    assert not tied.unexpected_keys
    theirs.tie_weights()
    return ours, theirs.eval(), config


def of_transformers(theirs, config, batch):
    """Logits of the masked tokens, and of the pairs where the model has them."""
    logits, pairs = [], []
    for ids, segments in zip(
        batch.input_ids.split(LENGTHS), batch.segment_ids.split(LENGTHS), strict=True
    ):
        inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
        if config.segments == 2:
            inputs["token_type_ids"] = segments[None]
        output = theirs(**inputs)
        logits.append(output["prediction_logits" if config.next_sentence else "logits"][0])
        if config.next_sentence:
            pairs.append(output.seq_relationship_logits.flip(1))  # 0 is theirs for "goes on"
    return torch.cat(logits)[batch.masked_positions], torch.cat(pairs) if pairs else None


@FAMILIES
@torch.no_grad()
def test_logits_are_those_of_transformers(make):
    ours, theirs, config = with_the_same_weights(make)
    batch = make_batch(LENGTHS, VOCAB, masked=[0, 7, 25, 40, 41, 47], pairs=True)
    predicted = ours(batch)
    logits, pairs = of_transformers(theirs, config, batch)
    assert logits.std() > 0.5
    torch.testing.assert_close(predicted.logits, logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(predicted.next_sentence, pairs, rtol=0, atol=1e-4)


@FAMILIES
def test_losses_while_training_are_those_of_transformers_with_torchs_adamw(make):
    ours, theirs, config = with_the_same_weights(make)
    settings = TrainingConfig(preset="tiny", micro_batch_tokens=64, weight_decay=0.1)
    optimizers = build_optimizers(ours, settings)
    decays = [p for p in theirs.parameters() if p.dim() > 1]
    others = [p for p in theirs.parameters() if p.dim() == 1]
    groups = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, 1e-2, settings.betas, settings.eps)
    losses = []
    for step in range(6):
        batch = make_batch(LENGTHS, VOCAB, masked=[0, 7, 25, 40, 41, 47], seed=step, pairs=True)
        loss = batch_loss(ours, batch)
        loss.backward()
        optimizers.set_rates(1e-2, 1.0, settings.weight_decay)
        optimizers.step(torch.zeros(()))
        optimizers.zero_grad()

        logits, pairs = of_transformers(theirs, config, batch)
        expected = F.cross_entropy(logits, batch.targets)
        if pairs is not None:
            expected += F.cross_entropy(pairs, batch.next_sentence, reduction="sum") / len(LENGTHS)
        expected.backward()
        adamw.step()
        adamw.zero_grad()
        losses.append((loss.item(), expected.item()))
    for loss, expected in losses:
        assert loss == pytest.approx(expected, abs=1e-4)
    assert abs(losses[0][0] - losses[-1][0]) > 0.1
