"""A real Prometheus for tests."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from helpers.support import missing


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def prometheus(
    target: str,
    folder: Path,
    rules: Sequence[Path] = (),
    others: Mapping[str, Sequence[str]] | None = None,
    web: Path | None = None,
) -> Iterator[str]:
    """A Prometheus that scrapes the target each half second; yields its address.

    rules: files that it evaluates, twice a second where they do not say how often. others: targets of other jobs, whose
    own labels are kept; more targets of the job foldmint, too. web: its file of TLS and passwords.
    """
    if shutil.which("prometheus") is None:
        missing("Debian's package prometheus", "`apt-get install prometheus` installs it")
    others = others or {}
    jobs = {**others, "foldmint": [target, *others.get("foldmint", ())]}
    configuration = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": job, "honor_labels": job != "foldmint", "static_configs": [{"targets": list(targets)}]}
            for job, targets in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # which is YAML, too
    address = f"127.0.0.1:{free_port()}"
    with subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
            *([f"--web.config.file={web}"] if web is not None else []),
        ],
    ) as process:
        try:
            yield address
        finally:
            process.terminate()


HASTE = {
    **dict.fromkeys(("30s", "1m"), "500ms"),
    "2m": "2s",
    **dict.fromkeys(("5m", "15m"), "6s"),
    "1h": "10s",
    "1d": "60s",
}
"""What a range, an offset or an interval of the shipped rules becomes where a test cannot wait for it."""

HASTE_FOR = {**dict.fromkeys(("2m", "5m", "10m"), "1s"), **dict.fromkeys(("15m", "1h"), "3s")}
"""What the time becomes that an alert waits before it fires."""


def hastened(rules: Iterable[Path], folder: Path) -> list[Path]:
    """Copies of rules with times as HASTE and HASTE_FOR have them; nothing else is changed.

    Raises KeyError for a time that these have not.
    """
    copies = []
    for path in rules:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"(\[|\boffset |\binterval: )(\d+[smhd])\b", lambda found: found[1] + HASTE[found[2]], text)
        text = re.sub(r"(\bfor: )(\d+[smhd])\b", lambda found: found[1] + HASTE_FOR[found[2]], text)
        copies.append(folder / path.name)
        copies[-1].write_text(text, encoding="utf-8")
    return copies


def firing(address: str) -> set[tuple[str, str]]:
    """Name and instance (empty, if it is of none) of each alert that fires; none if Prometheus is not up."""
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/alerts", timeout=5) as answer:
            alerts = json.load(answer)["data"]["alerts"]
    except OSError:
        return set()
    return {
        (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
        for alert in alerts
        if alert["state"] == "firing"
    }


def asked(address: str, expression: str) -> float | None:
    """The value of an expression that yields one; None if it yields none, or Prometheus is not up."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:
        return None
    return float(result[0]["value"][1]) if result else None


def awaited(address: str, expression: str, value: float, seconds: float = 30) -> float | None:
    """The expression's value once it is the one expected, or its last after so many seconds."""
    until = time.monotonic() + seconds
    while (seen := asked(address, expression)) != value and time.monotonic() < until:
        time.sleep(0.2)
    return seen
