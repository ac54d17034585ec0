"""A real Prometheus scrapes a real server, and its sums are the residues that were tokenized."""

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

import pytest

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_maintenance.corpus import Record
from support import missing, running_server, stub_of


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


def test_hits_add_up(chains: list[Record], data: Path, tmp_path: Path) -> None:
    sent = frameless = 0
    with (
        running_server() as server,
        stub_of(server) as stub,
        prometheus(server.metrics, tmp_path) as address,
    ):
        requests = []
        for chain in chains[:38]:
            x = chain.coordinates.copy()
            x[::10, 1] = float("nan")
            frameless += len(x[::10])
            sent += len(x)
            backbone = pb.Backbone(chain=chain.id, coordinates=x.tobytes())
            requests.append(pb.TokenizeRequest(backbones=pb.Backbones(chains=[backbone])))
        hits = 0
        for request in requests[:20]:
            hits += sum(stub.Tokenize(request).chains[0].has_frame)
        items = (pb.TokenizeStreamRequest(id=i, request=request) for i, request in enumerate(requests[20:]))
        for answer in stub.TokenizeStream(items):
            hits += sum(answer.response.chains[0].has_frame)
        with pytest.raises(Exception, match="no atoms"):
            stub.Tokenize(pb.TokenizeRequest(file=pb.StructureFile(content=b"junk")))
        assert hits == sent - frameless

        assert awaited(address, "sum(foldmint_code_hits_total)", hits) == hits
        assert asked(address, "count(foldmint_code_hits_total)") == 4096
        assert asked(address, 'foldmint_residues_total{frame="yes"}') == hits
        assert asked(address, 'foldmint_residues_total{frame="no"}') == frameless
        assert asked(address, 'foldmint_requests_total{method="Tokenize",status="OK"}') == 20
        assert asked(address, 'foldmint_requests_total{method="TokenizeStream",status="OK"}') == 18
        assert asked(address, 'foldmint_requests_total{method="Tokenize",status="INVALID_ARGUMENT"}') == 1
        assert asked(address, "foldmint_quantization_distance_count") == hits
        assert asked(address, "foldmint_queued_residues") == 0
        assert asked(address, 'sum(foldmint_stage_duration_seconds_count{stage="compute"})') == 38
        assert asked(address, "count(foldmint_codebook_info)") == 1
        assert asked(address, "foldmint_window_residues") == hits


def test_the_exposition_pleases_promtool(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        missing("promtool, of Debian's package prometheus,", "`apt-get install prometheus` installs it")
    with running_server() as server:
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as page:
            text = page.read()
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()
