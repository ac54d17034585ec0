"""The variables FOLDMINT_… of the commands, and a warning about those that none of them reads."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from functools import cache
from pathlib import Path

_PREFIX = "FOLDMINT_"

_SERVICE = re.compile(r"FOLDMINT(_\w+)?(?=_SERVICE_HOST$)")


@cache
def known_variables() -> frozenset[str]:
    """Names that any of the commands reads; from a file, since no command has the packages of all three."""
    lines = Path(__file__).with_name("environment_variables.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def unknown_variables(names: Collection[str]) -> list[str]:
    """Those of the names that begin with FOLDMINT_ and mean nothing to any command, sorted.

    Kubernetes sets NAME_SERVICE_HOST, NAME_PORT and more in a pod for each Service; these are left out.
    """
    services = tuple(
        f"{found[0]}_{part}" for name in names if (found := _SERVICE.match(name)) for part in ("SERVICE", "PORT")
    )
    return sorted(
        name
        for name in names
        if name.startswith(_PREFIX) and name not in known_variables() and not name.startswith(services)
    )


def unknown_variables_warning(names: Collection[str]) -> str | None:
    """One line about unknown variables, with the likely intended name of each; None if there are none."""
    unknown = []
    for name in unknown_variables(names):
        similar = get_close_matches(name, sorted(known_variables()), n=1, cutoff=0.8)
        unknown.append(f"{name} (did you mean {similar[0]}?)" if similar else name)
    if not unknown:
        return None
    return f"unknown environment variable{'s' if len(unknown) > 1 else ''}, ignored: {', '.join(unknown)}"
