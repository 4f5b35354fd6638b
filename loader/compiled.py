"""numba.njit as this folder uses it: for one signature, at import, kept on disk, without the GIL.

The signature is explicit, so that no step of a training run waits for a compiler. numba's cache
does not see a change in another file, so a compiled function calls only compiled functions of its
own file.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: str) -> Callable[[Function], Function]:
    """A decorator that compiles a function of arrays and integers for this numba signature."""

    def compile_it(function: Function) -> Function:
        return cast(Function, numba.njit(signature, nogil=True, cache=True)(function))

    return compile_it
