"""Operations of a token against the published models' figures, and peaks of devices."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training_runs import make_training_run

from tokenmill.loader import held_out_batches
from tokenmill.training.flops import flops_of_token, peak_flops
from tokenmill.training.initialise import initialise
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config


@pytest.mark.parametrize(
    ("preset", "mask_rate", "seen", "giga"),
    [
        ("neobert", 0.2, 1024, 1.481),
        ("neobert", 0.2, 4096, 2.274),
        ("neobert", 0.2, 8192, 3.331),
        ("modernbert-base", 0.3, 1024, 0.825),
        ("modernbert-base", 0.3, 4096, 1.051),
        ("modernbert-base", 0.3, 8192, 1.353),
        ("modernbert-large", 0.3, 1024, 2.308),
        ("modernbert-large", 0.3, 4096, 2.685),
        ("modernbert-large", 0.3, 8192, 3.189),
        ("bert-base", 0.15, 512, 0.588),
        ("bert-large", 0.15, 512, 1.992),
    ],
)
def test_a_token_costs_what_its_model_says(preset, mask_rate, seen, giga):
    """Worked out by hand from the papers' tables."""
    flops = flops_of_token(encoder_config(preset), mask_rate=mask_rate, seen=seen)
    assert flops / 1e9 == pytest.approx(giga, abs=5e-4)


def test_documents_shorter_than_a_window_see_each_other_whole():
    """So local layers cost them as much as global ones."""
    config = encoder_config("modernbert-base")
    everywhere = encoder_config("modernbert-base", {"global_every": 1})
    short, long = ({"mask_rate": 0.3, "seen": seen} for seen in (129, 130))
    assert flops_of_token(config, **short) == flops_of_token(everywhere, **short)
    assert flops_of_token(config, **long) < flops_of_token(everywhere, **long)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("tiny", {}), ("bert-base", {"layers": 2, "width": 64, "heads": 2, "next_sentence": False})],
)
def test_a_forward_pass_is_a_third_of_what_torch_counts_in_the_model(tmp_path, preset, changes):
    run = make_training_run(tmp_path, held_out={"16+": 2})
    (batch,) = held_out_batches(run, "phase1", micro_batch_rows=2)
    config = encoder_config(preset, changes, vocab_size=100, pad_id=0)
    model = build_model(config, "cpu", masked_queries_only=False)
    initialise(model, 0)
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),  # torch counts no other one on a CPU
    ):
        model(batch.to_torch())
    lengths, num_tokens = np.diff(batch.cu_seqlens), len(batch.input_ids)
    expected = flops_of_token(
        config,
        mask_rate=len(batch.targets) / num_tokens,
        seen=lengths @ lengths / num_tokens,
    )
    assert counter.get_total_flops() == pytest.approx(expected / 3 * num_tokens, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H20", 148),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("AMD Instinct MI300X", 1307),
    ],
)
def test_a_known_device_has_its_makers_peak(name, tera):
    assert peak_flops(name, "bfloat16") == tera * 1e12


def test_no_peak_is_guessed():
    assert peak_flops("NVIDIA H200", "float32") is None
    assert peak_flops("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16") is None
    assert peak_flops("NVIDIA H2000", "bfloat16") is None
    assert peak_flops("", "bfloat16") is None
