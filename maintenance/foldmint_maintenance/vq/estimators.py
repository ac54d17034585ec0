"""The gradient estimators of vector quantization, by name. Without torch."""

from typing import Literal, get_args

Estimator = Literal["straight_through", "rotation"]


def check_estimator(name: str) -> None:
    """Raise `ValueError` for an unknown estimator."""
    if name not in get_args(Estimator):
        raise ValueError(f"estimator is {' or '.join(get_args(Estimator))}, not {name!r}")
