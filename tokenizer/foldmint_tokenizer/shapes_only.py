"""Modules without values, which are filled from a file later."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _WithoutInitialization(TorchFunctionMode):
    """Leaves out the functions of `torch.nn.init`, which set a tensor in place and return it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call the function, or return its tensor as it is."""
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules created in this context have parameters of the right shapes, on the device `meta`, without values.

    They take no memory and no random numbers. Without values, not only without memory, because torch draws normal
    numbers for the device `meta` by code in Python that imports its compiler, which takes longer than all else that a
    start takes.
    """
    with torch.device("meta"), _WithoutInitialization():
        yield
