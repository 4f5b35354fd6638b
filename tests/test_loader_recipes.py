"""What docs/loader.md shows runs as it stands, and gives the batches and the losses it promises."""

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from loader_runs import MAX_LENGTH, TOKENIZER, make_run
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, TrainingArguments

from tokenmill.loader import Batch, Loader
from tokenmill.loader.torch_dataset import PackedDataset

PAGE = Path(__file__).parent.parent / "docs" / "loader.md"
NUM_STEPS = 4

# torchdata calls what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the page's run, and the working folder of all that is done here."""
    folder = tmp_path_factory.mktemp("page")
    make_run(folder / "runs" / "demo")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def page(folder):
    """What the page's code blocks, run one after the other, have defined, by their headings."""
    defined = {}
    for section in re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE):
        for block in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            names = defined.setdefault(section.partition("\n")[0], {})
            exec(compile(block, f"{PAGE}: {section[:20]}", "exec"), names)
    return defined


def tiny_bert(dropout):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=TOKENIZER.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForMaskedLM(config)


def train(page, out, *, dropout=0.1, stop=NUM_STEPS, resume=False):
    """The log of a Trainer, whose schedule is that of all steps."""
    recipe = page["Trainer of Hugging Face"]
    dataset = PackedDataset("runs/demo", micro_batch_rows=2, endless=True)

    class Kept(recipe["KeepPlace"]):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop |= state.global_step == stop

    trainer = recipe["PackedTrainer"](
        model=tiny_bert(dropout),
        args=TrainingArguments(
            output_dir=out,
            max_steps=NUM_STEPS,
            gradient_accumulation_steps=dataset.num_micro_batches,
            per_device_train_batch_size=1,
            ignore_data_skip=True,
            save_steps=1,
            logging_steps=1,
            max_grad_norm=1e9,
            disable_tqdm=True,
            report_to="none",
            use_cpu=True,
        ),
        train_dataset=dataset,
        compute_loss_func=recipe["summed_loss"],
        callbacks=[Kept(dataset)],
    )
    trainer.train(resume_from_checkpoint=resume)
    lines = (line for line in trainer.state.log_history if "loss" in line)
    return [(line["loss"], line["grad_norm"]) for line in lines]


def test_every_block_of_the_page_runs(page, folder):
    assert list(page) == [
        "The loader",
        "Padded batches",
        "A loop of your own",
        "Trainer of Hugging Face",
        "StatefulDataLoader of torchdata",
        "accelerate",
    ]
    first = page["The loader"]
    assert (first["state"]["step"], first["own_share_of_step_3"].step) == (3, 3)
    padded = page["Padded batches"]
    lines = [len(group.labels) for group in padded["groups"]]
    assert padded["static"].labels.shape[1] == MAX_LENGTH
    assert not any(number % 8 for number in [len(padded["static"].labels), *lines])
    assert list(padded["arguments"]) == ["input_ids", "attention_mask", "labels"]
    assert sorted(path.name for path in (folder / "bert").iterdir()) == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    own = page["A loop of your own"]
    assert own["state"]["step"] == own["loader"].num_steps == NUM_STEPS
    following = page["StatefulDataLoader of torchdata"]["following"]
    assert (following.step, following.micro_batch) == (1, 2)


def test_the_page_names_every_field_of_a_batch():
    table = PAGE.read_text().partition("## A batch")[2].partition("## ")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= {field.name for field in fields(Batch)}


def test_a_resumed_trainer_repeats_the_losses_of_a_straight_one(page, folder):
    straight = train(page, "straight")
    assert train(page, "stopped", stop=2) == straight[:2]
    assert train(page, "stopped", resume=True) == straight


def test_trainer_has_the_loss_and_the_gradient_of_the_packed_step(page, folder):
    ((loss, gradient), *_) = train(page, "no-dropout", dropout=0.0, stop=1)
    model = tiny_bert(0.0)
    with Loader("runs/demo", prefetch_bytes=0) as loader:
        batch = next(loader).to_torch()
    # The whole step as one line, with a mask that keeps sequences apart.
    sequence = torch.bucketize(torch.arange(len(batch.input_ids)), batch.cu_seqlens, right=True)
    logits = model(
        input_ids=batch.input_ids[None].long(),
        position_ids=batch.position_ids[None].long(),
        attention_mask=(sequence[:, None] == sequence)[None, None],
    ).logits[0, batch.masked_positions]
    expected = cross_entropy(logits, batch.targets, reduction="sum") / batch.step_targets
    expected.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert gradient == pytest.approx(norm.item(), rel=1e-4)
