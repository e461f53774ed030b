"""Python loops over arrays as machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


def compiled(function: Callable[..., Any], *arguments: Any, fastmath: frozenset[str] = frozenset()) -> Any:
    """Call what numba makes of the function; the code is kept on disk between processes where there is a folder for it.

    `fastmath` are the freedoms that LLVM has with floats.
    """
    try:
        return _machine_code(function, fastmath, True)(*arguments)
    except OSError:  # the folder of the compiled code can't be written; nothing has run yet
        return _machine_code(function, fastmath, False)(*arguments)


@cache
def _machine_code(function: Callable[..., Any], fastmath: frozenset[str], keep: bool) -> Callable[..., Any]:
    from numba import njit  # here: most processes only score, and numba takes half a second and 60 MB

    try:
        code: Callable[..., Any] = njit(function, cache=keep, nogil=True, fastmath=set(fastmath) or False)
        return code
    except RuntimeError:  # numba found no folder at all that it may write
        return _machine_code(function, fastmath, False)
