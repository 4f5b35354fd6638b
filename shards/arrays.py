"""Arrow arrays of numbers as numpy arrays, without the pandas that `to_numpy` would import."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DTYPES = {"float": "float32", "double": "float64"}
"""Arrow's names where numpy has others."""


def as_numpy(array: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A view of an array of numbers without nulls; booleans and several chunks are copied."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    assert array.null_count == 0
    if pa.types.is_boolean(array.type):
        return as_numpy(array.cast(pa.uint8())).view(np.bool_)
    buffer = array.buffers()[-1]
    dtype = np.dtype(DTYPES.get(str(array.type), str(array.type)))
    if buffer is None:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, len(array), array.offset * dtype.itemsize)
