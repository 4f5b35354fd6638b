import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.training.attention import block_diagonal_attention, packed_attention

HEADS, HEAD_DIM = 2, 8


def random_qkv(tokens: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (tokens, HEADS, HEAD_DIM)
    return [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3)]


def bounds(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any))
def test_packed_attention_equals_a_dense_block_diagonal_mask(lengths):
    cu_seqlens = bounds(lengths)
    results = []
    for attend in (lambda *x: packed_attention(*x, max(lengths)), block_diagonal_attention):
        qkv = random_qkv(sum(lengths))
        attended = attend(*qkv, cu_seqlens)
        attended.square().sum().backward()
        results.append([attended, *(tensor.grad for tensor in qkv)])
    for packed, dense in zip(*results, strict=True):
        torch.testing.assert_close(packed, dense, rtol=1e-5, atol=1e-5)


def test_a_token_sees_its_own_sequence_whole_and_no_other():
    query, key, value = random_qkv(5)
    attended = packed_attention(query, key, value, bounds([3, 2]), 3)
    attended[1].sum().backward()
    reached = value.grad.abs().sum(dim=(1, 2)) > 0
    assert reached.tolist() == [True, True, True, False, False]


def test_empty_sequences_at_the_end_change_nothing():
    qkv = random_qkv(5)
    closed = packed_attention(*qkv, torch.tensor([0, 3, 5, 5, 5], dtype=torch.int32), 3)
    assert torch.equal(closed, packed_attention(*qkv, bounds([3, 2]), 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the kernel is CUDA's alone")
def test_the_kernel_of_the_gpu_equals_the_dense_mask():
    cu_seqlens = bounds([7, 1, 24, 0, 0]).cuda()
    shape = (32, HEADS, 64)
    results = []
    for attend in (lambda *x: packed_attention(*x, 24), block_diagonal_attention):
        generator = torch.Generator("cuda").manual_seed(0)
        options = {"generator": generator, "device": "cuda", "dtype": torch.bfloat16}
        qkv = [torch.randn(shape, **options).requires_grad_() for _ in range(3)]
        attended = attend(*qkv, cu_seqlens)
        attended.square().sum().backward()
        results.append([attended, *(tensor.grad for tensor in qkv)])
    for packed, dense in zip(*results, strict=True):
        torch.testing.assert_close(packed, dense, rtol=2e-2, atol=2e-2)
