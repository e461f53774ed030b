"""Python loops over arrays as machine code."""

from __future__ import annotations

import dis
from collections.abc import Callable
from functools import cache, update_wrapper
from types import FunctionType
from typing import Any


def compiled(function: Callable[..., Any], *arguments: Any, fastmath: frozenset[str] = frozenset()) -> Any:
    """Call what numba makes of the function; the code is kept on disk between processes where there is a folder for it.

    The functions of its own module that it calls become machine code too. `fastmath` are the freedoms that LLVM has with floats.
    """
    try:
        return _machine_code(function, fastmath, True)(*arguments)
    except OSError:  # the folder of the compiled code can't be written; nothing has run yet
        return _machine_code(function, fastmath, False)(*arguments)


@cache
def _machine_code(function: Callable[..., Any], fastmath: frozenset[str], keep: bool) -> Callable[..., Any]:
    from numba import njit  # here: most processes only score, and numba takes half a second and 60 MB

    try:
        whole = _with_parts(function, fastmath, keep)
        code: Callable[..., Any] = njit(whole, cache=keep, nogil=True, fastmath=set(fastmath) or False)
        return code
    except RuntimeError:  # numba found no folder at all that it may write
        return _machine_code(function, fastmath, False)


def _with_parts(function: Callable[..., Any], fastmath: frozenset[str], keep: bool) -> Callable[..., Any]:
    """The function, calling machine code where it calls others of its module."""
    assert isinstance(function, FunctionType), "Kernels are plain functions."
    named = {step.argval for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL"}
    parts = {
        name: _machine_code(part, fastmath, keep)
        for name in sorted(named)
        if isinstance(part := function.__globals__.get(name), FunctionType) and part.__module__ == function.__module__
    }
    if not parts:
        return function
    whole = FunctionType(function.__code__, function.__globals__ | parts, function.__name__, function.__defaults__)
    return update_wrapper(whole, function)
