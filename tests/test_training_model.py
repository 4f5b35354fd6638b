from itertools import pairwise

import pytest
import torch

from tokenmill.errors import RecipeError
from tokenmill.training.presets import build, num_parameters

LENGTHS = [7, 1, 5]
TOKENS = sum(LENGTHS)
VOCAB = 50


@pytest.fixture
def model():
    model = build("tiny", "cpu", VOCAB)
    model.initialise(seed=0)
    return model


def packed_inputs():
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, VOCAB, (TOKENS,), generator=generator)
    position_ids = torch.cat([torch.arange(length) for length in LENGTHS])
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    return input_ids, position_ids, cu_seqlens


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_neobert_has_exactly_the_parameters_of_the_paper():
    model = build("neobert")
    assert num_parameters(model.encoder) == 221_665_536
    assert num_parameters(model) == 245_136_954
    assert num_parameters(model.encoder.blocks[0]) == 7_079_424
    assert len(model.state_dict()) == 172
    assert all(parameter.is_meta for parameter in model.parameters())


def test_the_vocabulary_is_the_runs_and_the_decoder_is_not_tied_to_the_embedding():
    model = build("tiny", vocab_size=300)
    assert model.encoder.embedding.weight.shape == model.decoder.weight.shape == (300, 128)
    assert model.decoder.weight is not model.encoder.embedding.weight


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"preset nebert: unknown\. Presets: neobert, tiny\."):
        build("nebert")


def test_packed_documents_get_the_vectors_and_gradients_of_separate_ones(model):
    input_ids, position_ids, cu_seqlens = packed_inputs()
    together = model(input_ids, position_ids, cu_seqlens, max(LENGTHS), torch.arange(TOKENS))
    together.square().sum().backward()
    packed = gradients(model)
    model.zero_grad()

    alone = []
    for start, end in pairwise(cu_seqlens.tolist()):
        length = end - start
        positions = torch.arange(length)
        own = torch.tensor([0, length], dtype=torch.int32)
        alone.append(model(input_ids[start:end], positions, own, length, positions))
    torch.cat(alone).square().sum().backward()

    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-4, atol=1e-4, msg=name)


def test_a_changed_token_moves_its_own_document_and_no_other(model):
    input_ids, position_ids, cu_seqlens = packed_inputs()
    before = model.encoder(input_ids, position_ids, cu_seqlens, max(LENGTHS))
    input_ids[2] = (input_ids[2] + 1) % VOCAB
    after = model.encoder(input_ids, position_ids, cu_seqlens, max(LENGTHS))
    moved = (before != after).any(dim=1)
    assert moved.tolist() == [True] * 7 + [False] * 6


def test_the_order_of_tokens_matters_and_the_place_in_the_batch_does_not(model):
    ids = torch.tensor([5, 6, 7, 7, 6, 5, 5, 6, 7])
    positions = torch.arange(3).repeat(3)
    vectors = model.encoder(ids, positions, torch.tensor([0, 3, 6, 9], dtype=torch.int32), 3)
    torch.testing.assert_close(vectors[:3], vectors[6:], rtol=0, atol=1e-5)
    assert not torch.allclose(vectors[0], vectors[5], atol=1e-3)


def test_logits_come_at_the_masked_positions_in_their_order(model):
    inputs = packed_inputs()
    every = model(*inputs, max(LENGTHS), torch.arange(TOKENS))
    some = model(*inputs, max(LENGTHS), torch.tensor([9, 2, 0, 0]))
    torch.testing.assert_close(some, every[[9, 2, 0, 0]], rtol=0, atol=1e-5)


def test_the_first_weights_depend_on_the_seed_alone():
    weights = []
    for seed in (3, 3, 4):
        model = build("tiny", "cpu", VOCAB)
        model.initialise(seed)
        weights.append(model.encoder.blocks[1].qkv.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_neobert_begins_uniform_within_two_hundredths():
    model = build("neobert", "cpu", vocab_size=40)
    model.initialise(seed=0)
    w12 = model.encoder.blocks[27].w12.weight
    assert 0.0199 < w12.max() <= 0.02
    assert -0.02 <= w12.min() < -0.0199
    assert torch.all(model.encoder.norm.weight == 1)
    assert torch.all(model.decoder.bias == 0)


def test_sixteen_bits_come_near_thirty_two_and_leave_the_weights_in_thirty_two(model):
    half = build("tiny", "cpu", VOCAB, compute_dtype=torch.bfloat16)
    half.load_state_dict(model.state_dict())
    inputs = (*packed_inputs(), max(LENGTHS), torch.arange(TOKENS))
    assert half(*inputs).dtype == torch.bfloat16
    assert half.decoder.weight.dtype == torch.float32
    difference = half(*inputs).float() - model(*inputs)
    assert difference.norm() < 0.03 * model(*inputs).norm()
