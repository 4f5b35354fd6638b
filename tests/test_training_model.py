"""One encoder for all presets: packed equals separate, compiled equals plain, masked equals all."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_batches import make_batch
from small_models import KINDS, VOCAB, make_model
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tokenmill.errors import RecipeError
from tokenmill.loader import TorchBatch
from tokenmill.loader.masking import NO_TARGET
from tokenmill.training.block import Norm, Sequences
from tokenmill.training.dropout import seed_dropout
from tokenmill.training.encoder_config import RopeConfig
from tokenmill.training.initialise import initialise
from tokenmill.training.loss import batch_loss
from tokenmill.training.masked_queries import masked_queries
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config
from tokenmill.training.rope import global_angles, local_angles


def gradients(model, loss) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    assert all(gradient is not None for gradient in found)
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_have_the_loss_and_gradients_of_separate_ones(kind):
    # One sequence longer than the windows, one of a single token, and two of none.
    batch = make_batch([9, 1, 0, 5, 0], VOCAB, masked=[0, 3, 8, 9, 11], unused=2, pairs=True)
    model = make_model(KINDS[kind])
    loss = batch_loss(model, batch)
    alone = [
        batch_loss(model, one_sequence(batch, number))
        for number, length in enumerate(batch.cu_seqlens.diff().tolist())
        if length
    ]
    assert_close(sum(alone), loss)
    together = gradients(model, loss)
    for name, gradient in gradients(model, sum(alone)).items():
        assert_close(together[name], gradient, msg=name)


def one_sequence(batch: TorchBatch, number: int) -> TorchBatch:
    """Its tokens alone; step_targets and step_pairs stay the batch's, so losses add up."""
    start, end = batch.cu_seqlens[number : number + 2].tolist()
    inside = (start <= batch.masked_positions) & (batch.masked_positions < end)
    inside &= batch.targets != NO_TARGET
    return replace(
        batch,
        input_ids=batch.input_ids[start:end],
        position_ids=batch.position_ids[start:end],
        segment_ids=batch.segment_ids[start:end],
        cu_seqlens=torch.tensor([0, end - start], dtype=torch.int32),
        masked_positions=batch.masked_positions[inside] - start,
        targets=batch.targets[inside],
        next_sentence=batch.next_sentence[number : number + 1],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_at_masked_tokens_alone_has_the_full_loss_and_gradients(kind):
    batch = make_batch([9, 1, 0, 5], VOCAB, masked=[0, 3, 8, 9, 11], unused=4)
    results = []
    for masked_queries_only in (True, False):
        config = replace(KINDS[kind], next_sentence=False)
        model = make_model(config, masked_queries_only=masked_queries_only)
        loss = batch_loss(model, batch, z_loss=0.1)
        results.append({"loss": loss.detach(), **gradients(model, loss)})
    assert model.masked_queries_only is False
    for name, value in results[0].items():
        assert_close(value, results[1][name], msg=name)


@pytest.mark.parametrize(
    "changes", [{"layers": 4, "global_every": 2, "window": 2}, {"next_sentence": True}]
)
def test_all_vectors_of_the_last_layer_are_computed_where_others_are_read(changes):
    assert build_model(KINDS["neobert"]).masked_queries_only
    assert not build_model(replace(KINDS["neobert"], **changes)).masked_queries_only


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=9).filter(any), st.data())
def test_queries_are_the_masked_tokens_by_sequence_within_a_bound_from_shapes(lengths, data):
    masked = sorted(data.draw(st.sets(st.integers(0, sum(lengths) - 1))))
    unused = data.draw(st.integers(0 if masked else 1, 40))
    batch = make_batch(lengths, VOCAB, masked=masked, unused=unused)
    queries = masked_queries(batch)
    assert queries.cu_seqlens.diff().max() <= queries.max_length <= len(masked) + unused
    for start, end, first, last in zip(
        batch.cu_seqlens, batch.cu_seqlens[1:], queries.cu_seqlens, queries.cu_seqlens[1:],
        strict=False,
    ):  # fmt: skip
        places = queries.places[first:last]
        assert ((start <= places) & (places < end)).all()
    used = queries.targets != NO_TARGET
    assert queries.places[used].tolist() == masked
    assert queries.targets[used].tolist() == batch.targets[: len(masked)].tolist()


def test_a_changed_token_moves_its_own_sequence_and_no_other():
    model = make_model(KINDS["modernbert"])
    batch = make_batch([7, 1, 5], VOCAB, masked=[0])
    before = model.encoder(batch)
    batch.input_ids[2] = (batch.input_ids[2] + 1) % VOCAB
    moved = (before != model.encoder(batch)).any(dim=1)
    assert moved.tolist() == [True] * 7 + [False] * 6


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_tokens_matters_and_the_place_in_the_batch_does_not(kind):
    batch = make_batch([3, 3, 3], VOCAB, masked=[0])
    ids = torch.tensor([5, 6, 7, 7, 6, 5, 5, 6, 7], dtype=torch.int32)
    vectors = make_model(KINDS[kind]).encoder(replace(batch, input_ids=ids))
    assert_close(vectors[:3], vectors[6:])
    assert not torch.allclose(vectors[0], vectors[5], atol=1e-3)


def test_neoberts_layer_is_that_of_its_code():
    # Query, key and value side by side in every head, and pairs as complex numbers.
    config = KINDS["neobert"]
    block = make_model(config).encoder.blocks[0].double()
    x = torch.randn(6, config.width, dtype=torch.float64, generator=torch.manual_seed(0))

    def normed(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    query, key, value = block.qkv(normed(x)).view(6, config.heads, -1).chunk(3, dim=-1)
    pairs = config.width // config.heads // 2
    turns = torch.outer(torch.arange(6.0), 10_000 ** -(torch.arange(pairs) / pairs))
    turned = torch.polar(torch.ones(()), turns)[:, None]
    query, key = (
        torch.view_as_real(torch.view_as_complex(part.unflatten(-1, (-1, 2))) * turned).flatten(-2)
        for part in (query, key)
    )
    scores = torch.einsum("qhd,khd->hqk", query, key) / (2 * pairs) ** 0.5
    middle = x + block.wo(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1))
    gate, up = block.ffn_in(normed(middle)).chunk(2, dim=-1)
    expected = middle + block.ffn_out(gate * gate.sigmoid() * up)
    sequences = Sequences(torch.tensor([0, 6], dtype=torch.int32), 6)
    angles = global_angles(torch.arange(6), pairs, config.rope)
    assert_close(block(x, angles, sequences), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["neobert", "bert"])
def test_norms_compute_in_thirty_two_bits(kind):
    norm = Norm(KINDS[kind])
    nn.init.constant_(norm.weight, 1.001)  # is 1 in 16 bits
    if norm.bias is not None:
        nn.init.zeros_(norm.bias)
    x = torch.linspace(1, 3, 16, dtype=torch.bfloat16)
    assert torch.equal(norm(x), norm(x.float()).bfloat16())
    assert not torch.equal(norm(x), norm(x.float()).div(1.001).bfloat16())


@pytest.mark.parametrize("length", [1024, 4096])
def test_yarn_has_transformers_wavelengths_and_temperature(length):
    rope = RopeConfig(theta=160_000.0, local_theta=10_000.0, yarn_factor=4, original_length=length)
    scaling = {"rope_type": "yarn", "rope_theta": rope.theta, "factor": 4.0,
               "original_max_position_embeddings": length}  # fmt: skip
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=1, max_position_embeddings=4 * length,
        rope_parameters=scaling,
    )  # fmt: skip
    speeds, temperature = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    positions = torch.arange(4 * length)
    turns = positions[:, None] * speeds
    cos, sin = global_angles(positions, 32, rope)[:, :, 0]
    assert_close(cos, turns.cos() * temperature, rtol=0, atol=1e-3)
    assert_close(sin, turns.sin() * temperature, rtol=0, atol=1e-3)
    plain = RopeConfig(theta=10_000.0)
    assert torch.equal(local_angles(positions, 32, rope), global_angles(positions, 32, plain))


def test_a_phase_may_change_rotary_positions():
    model = make_model(KINDS["neobert"])
    batch = make_batch([9], VOCAB, masked=[0])
    before = model.encoder(batch)
    model.set_rope(RopeConfig(theta=100.0))
    assert not torch.allclose(model.encoder(batch), before)
    model.set_rope(RopeConfig())
    assert torch.equal(model.encoder(batch), before)


def test_dropout_stands_where_the_recipes_have_it():
    def places(preset):
        modules = build_model(encoder_config(preset, {"layers": 1})).encoder.named_modules()
        return {name: module.p for name, module in modules if isinstance(module, nn.Dropout)}

    assert places("neobert") == {}
    assert places("modernbert-base") == {"blocks.0.attention_dropout": 0.1}
    bert = ["embeddings.dropout", "blocks.0.attention_dropout", "blocks.0.ffn_dropout"]
    assert places("bert-base") == dict.fromkeys(bert, 0.1)


def test_every_dropout_drops():
    batch = make_batch([9, 5], VOCAB, masked=[0, 3])
    plain = batch_loss(make_model(KINDS["bert"]), batch)
    model = make_model(replace(KINDS["bert"], dropout=0.5))
    places = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(places) == 1 + 2 * 2
    for alone in places:
        for module in places:
            module.p = 0.5 if module is alone else 0.0
        assert batch_loss(model, batch) != plain


def test_dropout_is_a_function_of_the_place_in_training():
    batch = make_batch([9, 5], VOCAB, masked=[0, 3])
    model = make_model(replace(KINDS["bert"], dropout=0.5), checkpoint_activations=True)

    def loss(*place):
        seed_dropout(*place)
        return batch_loss(model, batch).item()

    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert [loss(*place) for place in places] == [loss(*place) for place in places]
    assert len({loss(*place) for place in places}) == len(places)
    model.eval()
    assert loss(*places[0]) == batch_loss(make_model(KINDS["bert"]), batch).item()


@pytest.mark.parametrize("kind", KINDS)
def test_layers_computed_again_give_the_same_gradients(kind):
    batch = make_batch([9, 5], VOCAB, masked=[0, 3], pairs=True)
    results, calls = [], []
    for again in (True, False):
        model = make_model(replace(KINDS[kind], dropout=0.5), checkpoint_activations=again)
        for block in model.encoder.blocks:
            block.register_forward_pre_hook(lambda *_, again=again: calls.append(again))
        seed_dropout(0, 0, 0, 0)
        results.append(gradients(model, batch_loss(model, batch)))
    assert calls.count(True) == 2 * calls.count(False) > 0
    for name, gradient in results[0].items():
        assert torch.equal(gradient, results[1][name])


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_bits_come_near_thirty_two_and_leave_the_weights_in_thirty_two(kind):
    batch = make_batch([9, 5], VOCAB, masked=[0, 3, 11], pairs=True)
    exact, half = make_model(KINDS[kind]), make_model(KINDS[kind], torch.bfloat16)
    logits = half(batch).logits
    assert logits.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert batch_loss(half, batch).dtype == torch.float32
    expected = exact(batch).logits
    assert (logits - expected).norm() < 0.03 * expected.norm()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's
@pytest.mark.parametrize("kind", ["neobert", "modernbert", "bert"])
def test_compiled_layers_have_no_breaks_and_are_compiled_once(kind):
    counter = CompileCounter()
    model, plain = make_model(KINDS[kind]), make_model(KINDS[kind])
    model.compile(backend=counter)
    frames = []
    for theta, lengths in [(100.0, [9, 1, 0, 5]), (200.0, [2, 2, 9, 2])]:
        batch = make_batch(lengths, VOCAB, masked=[0, 3, 8], unused=2, seed=int(theta), pairs=True)
        results = []
        for each in (model, plain):
            each.set_rope(RopeConfig(theta=theta))
            loss = batch_loss(each, batch)
            results.append({"loss": loss, **gradients(each, loss)})
        for name, value in results[1].items():
            assert_close(results[0][name], value, msg=name)
        frames.append(counter.frame_count)
    assert 0 < frames[0] == frames[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore")  # of torch.compile
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_in_sixteen_bits_and_compiled_comes_near_a_cpu(kind):
    batch = make_batch([90, 1, 0, 37], VOCAB, masked=list(range(0, 128, 5)), unused=3, pairs=True)
    table = {"max_positions": 128} if KINDS[kind].positions == "learned" else {}
    results = []
    for device, dtype in [("cpu", torch.float32), ("cuda", torch.bfloat16)]:
        model = build_model(replace(KINDS[kind], **table), device, dtype)
        initialise(model, seed=0)
        if device == "cuda":
            model.compile()
        batch = batch.to(device)
        loss = batch_loss(model, batch, 1e-4, compiled=device == "cuda")
        results.append({"loss": loss.cpu(), **gradients(model, loss)})
    for name, value in results[0].items():
        assert (results[1][name].cpu() - value).norm() < 0.05 * value.norm() + 1e-3, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_compiles_for_sixteen_bits_alone():
    with pytest.raises(RecipeError, match=r"training\.dtype: expected bfloat16, found float32"):
        build_model(KINDS["neobert"], "cuda").compile()
