"""Compilation of functions by numba, on first use, with the result cached on disk."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[_Function], _Function]:  # noqa: ANN401 (numba's own)
    """Compile on first use; cache on disk for later processes if a cache folder is writable.

    The compiled function releases the interpreter's lock. options: as numba's `njit` takes them.
    """

    def decorate(function: _Function) -> _Function:
        try:
            made = njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no writable cache folder
            made = njit(nogil=True, **options)(function)
        return cast(_Function, made)

    return decorate
