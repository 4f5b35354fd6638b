"""Arm C: transformers' ModernBERT as one gets it without flash-attn: padded, torch's attention.

    C     lines in the order they come, padded to the longest of the micro-batch
    Cg    lines of like length together, padded to 128, 256, 512 ... tokens, and logits of masked
          tokens only (`sparse_prediction`): the most that its settings give

Its weights are those of our ModernBERT of the same size, by the names that an export writes; where
the preset is another model, the sizes are its own and the weights are not comparable. On a GPU it
runs under autocast, and the whole model is compiled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import ModernBertConfig, ModernBertForMaskedLM

from tokenmill.loader.batch import Batch
from tokenmill.shards.run import read_run
from tokenmill.training.hf.architecture import to_config
from tokenmill.training.hf.weights import to_hugging_face
from train_arms.arm import Baseline, our_model, whole_steps
from train_arms.padded_loop import Lines, cut_lines
from train_arms.setup import ArmSpec, Setup, modernbert_of_size

SHORTEST_GROUP = 128


class HuggingFace(Baseline):
    """A plain loop over lines, through transformers."""

    def __init__(self, setup: Setup, spec: ArmSpec) -> None:
        self._by_groups = spec.letter == "Cg"
        model = modernbert(setup, sparse_prediction=self._by_groups)
        super().__init__(setup, spec, model)
        self._forward = model
        if setup.compile:
            # Lines differ in length; with torch's 8 it might fall back to eager.
            torch._dynamo.config.recompile_limit = 64
            self._forward = torch.compile(model)

    def steps(self, phase: str, num_steps: int) -> list[Sequence[Lines]]:
        steps = whole_steps(self.setup, phase, num_steps)
        cut = self._grouped if self._by_groups else self._longest
        return [list(cut(step)) for step in steps]

    def loss(self, micro_batch: Lines) -> Tensor:
        kind = torch.device(self.setup.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.setup.dtype == "bfloat16"):
            loss: Tensor = self._forward(
                input_ids=micro_batch.input_ids,
                attention_mask=micro_batch.attention_mask,
                labels=micro_batch.labels,
                num_items_in_batch=micro_batch.step_targets,
            ).loss
        return loss

    def _longest(self, step: Batch) -> Iterator[Lines]:
        lines = max(self.spec.micro_batch_tokens // step.max_length, 1)
        return cut_lines(step.to_padded(pad_to_multiple_of=8), lines, self.setup.device)

    def _grouped(self, step: Batch) -> Iterator[Lines]:
        edges = [SHORTEST_GROUP]
        while edges[-1] < step.max_length:
            edges.append(2 * edges[-1])
        for group in step.to_length_groups(edges):
            length = group.input_ids.shape[1]
            lines = max(self.spec.micro_batch_tokens // length, 1)
            yield from cut_lines(group, lines, self.setup.device, multiple=length)


def modernbert(setup: Setup, *, sparse_prediction: bool) -> ModernBertForMaskedLM:
    """transformers' model with the weights of ours of the same size."""
    config = modernbert_of_size(setup.encoder)
    ours = our_model(replace(setup, encoder=config))
    tokenizer = read_run(setup.run).tokenizer
    settings = to_config(config, tokenizer, max_length=8192)
    model = ModernBertForMaskedLM(
        ModernBertConfig(
            **settings, attn_implementation="sdpa", sparse_prediction=sparse_prediction
        )
    )
    weights = to_hugging_face(ours.state_dict(), config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = {"decoder.weight"}
    if set(missing) - tied or unexpected:
        raise AssertionError(f"transformers lacks {missing}, and does not know {unexpected}")
    return model.to(setup.device)
