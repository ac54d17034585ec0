"""docs/metrics.md compared with what is exposed, and promtool's word on an exposition."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.core import Metric

from helpers.support import ROOT, missing

PAGE = ROOT / "docs" / "metrics.md"
WITHOUT_SERIES = (
    "foldmint_certificate_expiry_timestamp_seconds",
    "foldmint_store_canary_share",
    "foldmint_token_expiry_timestamp_seconds",
    "foldmint_token_last_use_timestamp_seconds",
    "foldmint_caller_refusals_total",
)
OF_A_SERVER = ("Requests and load", "Codes", "Process")


class Kind(NamedTuple):
    """Type of a metric, and its labels."""

    type: str
    labels: frozenset[str]


def told(*sections: str) -> dict[str, Kind]:
    """The metrics of the page's sections."""
    found: dict[str, Kind] = {}
    for section in sections:
        text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
        for line in re.findall(r"(?m)^\| `([a-z_]+)` \| ([a-z]+) \| (.*?) \| .+ \|$", text):
            assert line[0] not in found
            found[line[0]] = Kind(line[1], frozenset(re.findall("`([a-z]+)`", line[2])))
    return found


def shown(families: Iterable[Metric]) -> dict[str, Kind]:
    """The metrics of an exposition, of a server without TLS, tokens and canary, which has refused nothing."""
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name: Kind(
            family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        )
        for family in families
    }
    # Without series here; see test_tls.py, test_activation.py, test_token_expiry.py, test_callers.py.
    for name in WITHOUT_SERIES:
        if name in found:
            assert not found[name].labels
            found[name] = told("Requests and load")[name]
    return found


def linted(text: str | bytes) -> str:
    """What promtool has to say of an exposition."""
    if shutil.which("promtool") is None:
        missing("promtool, of Debian's package prometheus,", "`apt-get install prometheus` installs it")
    content = text.encode() if isinstance(text, str) else text
    done = subprocess.run(["promtool", "check", "metrics"], input=content, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode()
