"""A real Prometheus scrapes a real server, and its sums are the residues that were tokenized."""

import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from foldmint.v1 import tokenizer_pb2 as pb
from helpers.chains import RealChain
from helpers.monitoring.real_prometheus import asked, awaited, prometheus
from helpers.support import missing, running_server, stub_of


def test_hits_add_up(chains: list[RealChain], data: Path, tmp_path: Path) -> None:
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
        with pytest.raises(Exception, match="unknown format"):
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
