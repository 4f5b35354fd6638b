"""Which rows of a step each rank takes, in which micro-batch.

    10 rows, 3 ranks, micro-batches of 2     rank 0: 0 1 | 2 3    rank 1: 4 5 | 6 7    rank 2: 8 9 |

The step's rows have one canonical order; a rank takes a contiguous slice of
ceil(rows / world_size). Every rank has the same number of micro-batches of the same shape; what a
short rank lacks is filled with rows of weight 0.
"""


def num_micro_batches(num_rows: int, world_size: int, micro_batch_rows: int) -> int:
    """Micro-batches that each rank has in a step."""
    return -(-rows_per_rank(num_rows, world_size) // micro_batch_rows)


def rows_per_rank(num_rows: int, world_size: int) -> int:
    """Rows that a full rank takes of a step."""
    return -(-num_rows // world_size)


def micro_batch(
    num_rows: int, rank: int, world_size: int, micro_batch_rows: int, index: int
) -> range:
    """The places in the canonical order of one micro-batch: at most micro_batch_rows of them,
    perhaps none."""
    share = rows_per_rank(num_rows, world_size)
    start = rank * share + index * micro_batch_rows
    end = min(start + micro_batch_rows, (rank + 1) * share, num_rows)
    return range(min(start, end), end)
