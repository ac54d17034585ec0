"""Durations as users write them, in Prometheus' syntax."""

import re

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def parse_duration(duration: str) -> float:
    """Seconds of a duration in Prometheus' syntax (7d, 1h30m, 90s). Raises `ValueError` if it is invalid or 0."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is not a duration; 12h, 7d or 1h30m would be one")
    total = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if total == 0:
        raise ValueError(f"{duration!r} must be longer than 0")
    return total
