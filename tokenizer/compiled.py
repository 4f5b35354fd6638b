"""Functions that numba compiles: the few loops over bytes and ids that numpy cannot express.

Compiled on the first call and kept beside the source, so that a worker starts in milliseconds. The
lock of Python is released inside, so threads may run one each. What is kept is compiled anew when
its file or one that it imports changes: numba looks at the first alone, and would go on with what
it had inlined from the others.

Two habits made the hot loops four times faster here, so keep them: positions are np.uint64, because
a signed index is tested for below zero at each access; and small functions in a loop are inlined,
because a call counts references to every array it is given.
"""

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
_IMPORT = re.compile(r"^from (tokenmill\.[\w.]+) import", re.MULTILINE)


def compiled(function: Function) -> Function:
    """The function, compiled for the types it is called with; its Python types stay visible."""
    return _stamped(numba.njit(cache=True, nogil=True)(function), function)


def compiled_inline(function: Function) -> Function:
    """As `compiled`, and copied into the compiled functions that call it."""
    return _stamped(numba.njit(cache=True, nogil=True, forceinline=True)(function), function)


def _stamped(dispatcher: Any, function: Function) -> Function:
    """The compiled function, kept for as long as no file that it imports changes."""
    kept = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if kept is not None:
        names = sorted(_imported(function.__module__))
        kept._source_stamp = (kept._source_stamp, [_stamp(name) for name in names])
    return cast(Function, dispatcher)


@cache
def _imported(module: str) -> frozenset[str]:
    """A module of ours and all of ours that it imports, they too."""
    found, left = set[str](), [module]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _IMPORT.findall(_path(name).read_text())
    return frozenset(found)


@cache
def _stamp(module: str) -> tuple[str, int, int]:
    state = _path(module).stat()
    return module, state.st_mtime_ns, state.st_size


def _path(module: str) -> Path:
    return Path(str(sys.modules[module].__file__))
