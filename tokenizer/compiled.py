"""Functions that numba compiles: the few loops over bytes and ids that numpy cannot express.

Compiled on the first call and kept beside the source, so that a worker starts in milliseconds. The
lock of Python is released inside, so threads may run one each.

Two habits made the hot loops four times faster here, so keep them: positions are np.uint64, because
a signed index is tested for below zero at each access; and small functions in a loop are inlined,
because a call counts references to every array it is given.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function, compiled for the types it is called with; its Python types stay visible."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def compiled_inline(function: Function) -> Function:
    """As `compiled`, and copied into the compiled functions that call it."""
    return cast(Function, numba.njit(cache=True, nogil=True, forceinline=True)(function))
