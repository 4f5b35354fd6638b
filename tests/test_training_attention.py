import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tokenmill.training.attention import (
    attention_by_block,
    attention_by_sequence,
    backend,
    block_diagonal_attention,
    packed_attention,
)

HEADS = 2
TAIL = [0, 0]  # sequences that are not there
lengths = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)


def bounds(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def random_qkv(queries: int, keys: int, head_dim: int = 8, **options) -> list[torch.Tensor]:
    generator = torch.Generator(options.get("device", "cpu")).manual_seed(0)
    return [
        torch.randn((tokens, HEADS, head_dim), generator=generator, **options).requires_grad_()
        for tokens in (queries, keys, keys)
    ]


def outputs_and_gradients(attend, qkv, *where):
    attended = attend(*qkv, *where)
    return [attended, *torch.autograd.grad(attended.square().sum(), qkv)]


def assert_equals_the_dense_mask(attend, qkv, where, window=0):
    dense = outputs_and_gradients(block_diagonal_attention, qkv, *where, window)
    for ours, expected in zip(outputs_and_gradients(attend, qkv, *where), dense, strict=True):
        assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(lengths, st.data())
def test_a_call_a_sequence_equals_a_dense_block_diagonal_mask(keys, data):
    queries = [data.draw(st.integers(0, 4)) if keys else 0 for keys in keys]
    if any(queries):
        qkv = random_qkv(sum(queries), sum(keys))
        where = bounds(queries + TAIL), bounds(keys + TAIL)
        assert_equals_the_dense_mask(attention_by_sequence, qkv, where)


@settings(deadline=None, max_examples=60)
@given(lengths, st.integers(1, 9))
def test_blocks_with_their_neighbours_equal_a_dense_mask(lengths, window):
    def attend(query, key, value, cu_queries, cu_keys):
        return attention_by_block(query, key, value, cu_keys, window)

    where = bounds(lengths + TAIL), bounds(lengths + TAIL)
    qkv = random_qkv(sum(lengths), sum(lengths))
    assert_equals_the_dense_mask(attend, qkv, where, window)


@pytest.mark.parametrize(
    ("window", "seen"), [(0, [1, 1, 1, 1, 0, 0]), (1, [0, 1, 1, 1, 0, 0]), (2, [1, 1, 1, 1, 0, 0])]
)
def test_a_token_sees_its_own_sequence_as_far_as_the_window_and_no_other(window, seen):
    query, key, value = random_qkv(6, 6)
    cu_seqlens = bounds([4, 2])
    attended = packed_attention(query, key, value, cu_seqlens, cu_seqlens, 4, 4, window)
    attended[2].sum().backward()
    assert (value.grad.abs().sum(dim=(1, 2)) > 0).int().tolist() == seen


def test_the_fused_kernel_is_for_sixteen_bits_on_a_gpu():
    assert backend("cuda", torch.bfloat16) == backend("cuda:1", torch.float16) == "varlen"
    assert backend("cuda", torch.float32) == backend("cpu", torch.bfloat16) == "by sequence"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the kernel is CUDA's alone")
@pytest.mark.parametrize(("window", "queries"), [(0, None), (5, None), (0, [3, 0, 9, 0, 0])])
def test_the_kernel_of_the_gpu_equals_the_dense_mask(window, queries):
    keys = [7, 1, 24, 0, 0]
    queries = queries or keys
    where = bounds(queries).cuda(), bounds(keys).cuda()
    options = {"device": "cuda", "dtype": torch.bfloat16}
    qkv = random_qkv(sum(queries), sum(keys), 64, **options)
    fused = outputs_and_gradients(packed_attention, qkv, *where, max(queries), max(keys), window)
    dense = outputs_and_gradients(block_diagonal_attention, qkv, *where, window)
    for ours, expected in zip(fused, dense, strict=True):
        assert_close(ours, expected, rtol=2e-2, atol=2e-2)
