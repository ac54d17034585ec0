"""Each query of Grafana's dashboard has data of a real server in a real Prometheus."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import torch

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_maintenance.repair.job_metrics import GateValues, JobMetrics
from foldmint_server.security.bearer_tokens import AccessToken, digest_of, format_tokens
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.neighborhoods import build_geometry
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import Store, create_store
from helpers.chains import RealChain
from helpers.monitoring.grafana_page import Prometheus, Query, committed_dashboard, interpolated, queries, transformed
from helpers.monitoring.real_prometheus import asked, free_port, hastened, prometheus
from helpers.support import ROOT, RunningServer, admin_of, metrics_of, missing, running_server, stub_of
from helpers.traffic import streamed

RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
PATIENCE = 120.0
EXPIRY = datetime(2099, 1, 1, tzinfo=UTC)
# What the test does not bring about: TLS, a canary, and a GPU where there is none. Such a query is still one that
# Prometheus takes.
WITHOUT_DATA = {("Time to the end of certificates", "A"), ("Canary", "A"), ("Canary", "B")}
if not torch.cuda.is_available():
    WITHOUT_DATA |= {("Memory of the GPU", ref) for ref in "ABCD"} | {("Utilization of the GPU", "A")}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return committed_dashboard()


def panel_of(dashboard: dict[str, Any], title: str) -> dict[str, Any]:
    (found,) = [panel for panel in dashboard["panels"] if panel["title"] == title]
    assert isinstance(found, dict)
    return found


class Watched(NamedTuple):
    """A server with traffic, Prometheus that has the hastened rules, and the values of the dashboard's variables."""

    server: RunningServer
    prometheus: Prometheus
    variables: dict[str, str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, chains: list[RealChain]) -> Path:
    """A store of a small encoder that was never trained, with two versions of 4096 codes where its vectors are.

    Small, so that seconds of one core are enough residues to tell which codes are dead.
    """
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(width=16, heads=2, layers=1, out=8))
    engine, path = Engine(encoder), tmp_path_factory.mktemp("grafana") / "store"
    shapes = [build_geometry(chain.coordinates, chain.residue_index) for chain in chains]
    z = torch.cat([engine.vectors(shape.rows(slice(None))) for shape in shapes])
    vectors = z[torch.randperm(len(z))[:4096]].clone()
    first = Codebook(vectors, torch.ones(4096), vectors.clone())
    create_store(path, name="small", encoder=encoder, codebook=first, about={})
    Store(path).publish(Codebook(*(part.flip(0) for part in first)), parent="000001", about={})
    return path


@pytest.fixture(scope="module")
def pushgateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("prometheus-pushgateway") is None:
        missing("Debian's package prometheus-pushgateway", "`apt-get install prometheus-pushgateway` installs it")
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-pushgateway", f"--web.listen-address={address}", "--log.level=error"]
    command += [f"--persistence.file={tmp_path_factory.mktemp('pushed') / 'all'}"]  # Debian's has one that all share
    with subprocess.Popen(command) as process:
        yield address
        process.terminate()


@pytest.fixture(scope="module")
def watched(
    store: Path, pushgateway: str, chains: list[RealChain], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder, copies = tmp_path_factory.mktemp("prometheus"), tmp_path_factory.mktemp("rules")
    over = threading.Event()
    token = AccessToken("alice", digest_of("secret"), frozenset({"tokenize"}), None, EXPIRY)
    (folder / "tokens.toml").write_text(format_tokens([token]))
    access = ["--tokens-file", str(folder / "tokens.toml"), "--anonymous", "tokenize", "--reload-seconds", "1"]
    with (
        running_server("--model", str(store), "--poll-seconds", "0", *access) as server,
        stub_of(server) as stub,
        admin_of(server) as admin,
        prometheus(server.metrics, folder, hastened(RULES, copies), {"foldmint-repair": [pushgateway]}) as address,
    ):
        asking = Prometheus(address)

        def traffic() -> None:
            while not over.is_set():
                began = time.monotonic()
                streamed(stub, chains)
                over.wait(3.5 - (time.monotonic() - began))

        sending = threading.Thread(target=traffic)
        sending.start()
        try:
            with pytest.raises(grpc.RpcError, match="unknown format"):
                stub.Tokenize(
                    pb.TokenizeRequest(file=pb.StructureFile(content=b"junk")),
                    metadata=(("authorization", "Bearer secret"),),
                )
            _await(address, 'foldmint_codebook_swaps_total{outcome="refused"}')
            # Until an increase is seen: of two seconds, in which a busy machine may miss scrapes.
            until = time.monotonic() + PATIENCE
            while not asking.courses('increase(foldmint_codebook_swaps_total{outcome="refused"}[2s]) > 0'):
                assert time.monotonic() < until, "Prometheus has not seen that a codebook was refused"
                with pytest.raises(grpc.RpcError, match="000077"):
                    admin.ActivateCodebook(cb.ActivateCodebookRequest(version="000077"))
                time.sleep(1)
            _await(address, 'codebook:foldmint_codebook_info:count{version="000001"}')
            admin.ActivateCodebook(cb.ActivateCodebookRequest(version="000002"))
            gates = {"quantization_error": GateValues(1.0, 0.9, 1.01, passed=True)}
            JobMetrics("s3://store", "success", time.time(), 60.0, 12, 12, 0.01, gates, "000002").push(
                f"http://{pushgateway}"
            )
            _await(address, 'codebook:foldmint_code_drift:psi1h{version="000002"}')
            _await(address, 'codebook:foldmint_dead_codes:ratio1d{version="000002"}')
            instance = server.metrics.replace(".", r"\\.")
            yield Watched(
                server,
                asking,
                {"job": "foldmint", "instance": instance, "version": "000002", "__rate_interval": "4s"},
            )
        finally:
            over.set()
            sending.join()


def _await(address: str, expression: str) -> None:
    until = time.monotonic() + PATIENCE
    while asked(address, expression) is None:
        assert time.monotonic() < until, f"Prometheus has no {expression}"
        time.sleep(0.5)


@pytest.mark.slow
def test_the_variables_have_values(dashboard: dict[str, Any], watched: Watched) -> None:
    found: dict[str, list[str]] = {}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match is not None
            found[variable["name"]] = watched.prometheus.values_of(match[2], interpolated(match[1], watched.variables))
    assert found == {
        "job": ["foldmint"],
        "instance": [watched.server.metrics],
        "version": ["000001", "000002"],
    }
    (window,) = [one for one in dashboard["templating"]["list"] if one["name"] == "window"]
    # The rules have both.
    assert window["query"].split(",") == ["1h", "1d"]


@pytest.mark.slow
@pytest.mark.parametrize("window", ["1h", "1d"])
def test_each_query_has_data(dashboard: dict[str, Any], watched: Watched, window: str) -> None:
    empty = set()
    asked_for: list[Query] = list(queries(dashboard))
    for query in asked_for:
        expr = interpolated(query.expr, {**watched.variables, "window": window})
        name = (query.owner, query.ref)
        if not watched.prometheus.has_data(query, expr, expected=name not in WITHOUT_DATA):
            empty.add(name)
    assert empty == WITHOUT_DATA
    assert len(asked_for) > 60


@pytest.mark.slow
@pytest.mark.parametrize("window", ["1h", "1d"])
def test_the_square_has_each_code_at_its_place(dashboard: dict[str, Any], watched: Watched, window: str) -> None:
    panel = panel_of(dashboard, "Use of each code, in $window")
    (target,) = panel["targets"]
    table = watched.prometheus.table(interpolated(target["expr"], {**watched.variables, "window": window}))
    (square,) = transformed(panel, [table])
    (series,) = panel["options"]["series"]
    x, y, color = (square[series[name]["matcher"]["options"]] for name in ("x", "y", "color"))
    assert sorted(zip(x, y, strict=True)) == [(column, row) for column in range(64) for row in range(64)]
    assert square["code"] == [64 * row + column for column, row in zip(x, y, strict=True)]
    assert square.keys() == {"code", "row", "column", "use"}
    # In multiples of the mean; and of no other codes than the server says it used.
    assert sum(color) / 4096 == pytest.approx(1)
    metrics = metrics_of(watched.server)
    hits = [metrics[f'foldmint_code_hits_total{{code="{code:.0f}"}}'] for code in square["code"]]
    assert sum(use > 0 for use in color) > 1000
    assert all(hit > 0 for use, hit in zip(color, hits, strict=True) if use > 0)
    colors = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert colors == [None, *sorted(colors[1:])]
    # A code that was hit once has another color than one that was not.
    assert 0 < colors[1] < 1 / max(hits)


@pytest.mark.slow
def test_the_tail_falls(dashboard: dict[str, Any], watched: Watched) -> None:
    panel = panel_of(dashboard, "The long tail, in $window")
    (target,) = panel["targets"]
    table = watched.prometheus.table(interpolated(target["expr"], {**watched.variables, "window": "1h"}))
    (tail,) = transformed(panel, [table])
    assert panel["options"]["xField"] == "rank"
    assert list(tail) == ["rank", "use"]
    assert tail["rank"] == list(range(4096))
    assert tail["use"] == sorted(tail["use"], reverse=True)
    assert tail["use"][0] > tail["use"][-1]


@pytest.mark.slow
def test_the_gates_are_a_row_each(dashboard: dict[str, Any], watched: Watched) -> None:
    panel = panel_of(dashboard, "Gates of the last run")
    tables = [watched.prometheus.table(target["expr"], f"Value #{target['refId']}") for target in panel["targets"]]
    (gates,) = transformed(panel, tables)
    assert {name: values for name, values in gates.items() if name != "Time"} == {
        "store": ["s3://store"],
        "gate": ["quantization_error"],
        "before": [1.0],
        "after": [0.9],
        "limit": [1.01],
        "passed": [1.0],
    }


@pytest.mark.slow
def test_a_token_is_a_row(dashboard: dict[str, Any], watched: Watched) -> None:
    panel = panel_of(dashboard, "Tokens")
    tables = [
        watched.prometheus.table(interpolated(target["expr"], watched.variables), f"Value #{target['refId']}")
        for target in panel["targets"]
    ]
    (tokens,) = transformed(panel, tables)
    used = metrics_of(watched.server)['foldmint_token_last_use_timestamp_seconds{token="alice"}']
    assert tokens == {
        "token": ["alice"],
        "expires": [1000 * EXPIRY.timestamp()],
        "last use": [pytest.approx(1000 * used, abs=1)],
    }


@pytest.mark.slow
def test_a_server_is_a_row(dashboard: dict[str, Any], watched: Watched) -> None:
    panel = panel_of(dashboard, "Servers")
    tables = [
        watched.prometheus.table(interpolated(target["expr"], watched.variables), f"Value #{target['refId']}")
        for target in panel["targets"]
    ]
    (servers,) = transformed(panel, tables)
    digest = servers.pop("digest")[0]
    metrics = metrics_of(watched.server)
    assert metrics[f'foldmint_codebook_info{{digest="{digest}",model="small",version="000002"}}'] == 1
    assert servers == {
        "server": [watched.server.metrics],
        "model": ["small"],
        "codebook": ["000002"],
        "since": [pytest.approx(1000 * metrics["foldmint_codebook_activated_timestamp_seconds"], abs=1)],
        "device": ["cuda" if torch.cuda.is_available() else "cpu"],
        "precision": ["float32"],
    }


@pytest.mark.slow
def test_swaps_and_repairs_are_marked_at_their_times(dashboard: dict[str, Any], watched: Watched) -> None:
    marks = {one["name"]: one for one in dashboard["annotations"]["list"]}
    activated = watched.prometheus.courses(interpolated(marks["Codebook activated"]["expr"], watched.variables))
    # One mark for each version, in ms since 1970: all its values are the same.
    times = {labels["version"]: set(values) for labels, values in activated}
    assert times.keys() == {"000001", "000002"}
    assert all(len(values) == 1 for values in times.values())
    (swapped,) = times["000002"]
    assert swapped == pytest.approx(
        1000 * metrics_of(watched.server)["foldmint_codebook_activated_timestamp_seconds"], abs=1
    )
    refused = watched.prometheus.courses(interpolated(marks["Codebook refused"]["expr"], watched.variables))
    assert [labels["instance"] for labels, _ in refused] == [watched.server.metrics]
    assert {marks[name]["useValueForTime"] for name in ("Codebook activated", "Repair ended")} == {True}
    assert not marks["Codebook refused"]["useValueForTime"]


@pytest.fixture(scope="session")
def library() -> Path:
    """A folder with Grafana's own library, of the version that deploy/compose.yaml runs."""
    if shutil.which("npm") is None:
        missing("npm", "`apt-get install npm` installs it")
    folder = ROOT / ".grafana"
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests/grafana/package.json", folder)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps", "--no-package-lock"]
    subprocess.run(["npm", "install", *options], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.long
@pytest.mark.slow
def test_grafanas_own_library_makes_the_same_of_the_tables(
    dashboard: dict[str, Any], watched: Watched, library: Path
) -> None:
    transforming = [panel for panel in dashboard["panels"] if panel.get("transformations")]
    assert len(transforming) == 6
    for panel in transforming:
        targets = panel["targets"]
        names = ["Value"] if len(targets) == 1 else [f"Value #{target['refId']}" for target in targets]
        exprs = [interpolated(target["expr"], {**watched.variables, "window": "1h"}) for target in targets]
        tables = [watched.prometheus.table(*one) for one in zip(exprs, names, strict=True)]
        color = "use" if panel["type"] == "xychart" else None
        done = subprocess.run(
            ["node", str(ROOT / "tests/grafana/transform.cjs")],
            input=json.dumps({"panel": panel, "frames": tables, "color": color}),
            cwd=library,
            text=True,
            capture_output=True,
            check=True,
        )
        made = json.loads(done.stdout)
        assert made["frames"] == transformed(panel, tables), panel["title"]
        if color is not None:
            (square,) = made["frames"]
            steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert made["colors"] == [
                [step["color"] for step in steps if step["value"] is None or use >= step["value"]][-1]
                for use in square[color]
            ]
