"""A real Prometheus for tests."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import missing


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes the target each half second; yields its address."""
    if shutil.which("prometheus") is None:
        missing("Debian's package prometheus", "`apt-get install prometheus` installs it")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms}\n"
        f"scrape_configs: [{{job_name: foldmint, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    address = f"127.0.0.1:{free_port()}"
    with subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ],
    ) as process:
        try:
            yield address
        finally:
            process.terminate()


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
