"""A real server is driven into what alerts are for, and a real Prometheus with the shipped rules, hastened, fires them.

What a test cannot bring about in seconds, failures inside the server and answers that take longer than ten seconds, is
left to promtool: tests/prometheus/alerts.yml.
"""

import dataclasses
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_maintenance.repair.job_metrics import JobMetrics
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.store.model_store import Store, create_store, load_model
from helpers.chains import RealChain
from helpers.monitoring.real_prometheus import awaited, firing, free_port, hastened, prometheus
from helpers.support import ROOT, RunningServer, admin_of, missing, running_server, stub_of

pytestmark = pytest.mark.slow

RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
CODES = 64
PATIENCE = 90.0


@pytest.fixture
def few_codes(tmp_path: Path) -> Path:
    """A store of the default model's encoder with so few codes that a thousand residues tell how they are used, and two
    versions of them; the first is in use.
    """
    model = load_model()
    encoder = Encoder(dataclasses.replace(model.config, codes=CODES))
    encoder.load_state_dict(model.encoder.state_dict())
    orders = torch.randperm(model.config.codes, generator=torch.Generator().manual_seed(0)).view(-1, CODES)
    first, second = (Codebook(*(part[order].contiguous() for part in model.codebook.codebook)) for order in orders[:2])
    create_store(tmp_path / "store", name="few", encoder=encoder, codebook=first, about={})
    Store(tmp_path / "store").publish(second, parent="000001", about={})
    return tmp_path / "store"


@contextmanager
def watched(
    server: RunningServer, folder: Path, others: dict[str, list[str]] | None = None
) -> Iterator[Callable[..., set[str]]]:
    """Prometheus with the hastened rules. Yields what waits for alerts, and returns all that fire until then."""
    copies = folder / "rules"
    copies.mkdir()
    with prometheus(server.metrics, folder, hastened(RULES, copies), others) as address:

        def await_alerts(
            wanted: set[tuple[str, str]], meanwhile: Callable[[], object] = lambda: time.sleep(0.2)
        ) -> set[str]:
            # One may have passed when another comes.
            found, until = firing(address), time.monotonic() + PATIENCE
            while not wanted <= found and time.monotonic() < until:
                meanwhile()
                found |= firing(address)
            assert wanted <= found, f"only {sorted(found)} fire"
            return {name for name, _ in found}

        # Prometheus takes some seconds to find its targets, and until then there is no server that it could see.
        assert awaited(address, f'up{{instance="{server.metrics}"}}', 1) == 1
        until = time.monotonic() + PATIENCE
        while ("FoldmintDown", "") in firing(address) and time.monotonic() < until:
            time.sleep(0.2)
        yield await_alerts


def _request(chains: list[RealChain], blur: float = 0.0) -> pb.TokenizeRequest:
    """All chains in one request, with coordinates that are off by so many Å."""
    random = np.random.default_rng(0)
    return pb.TokenizeRequest(
        backbones=pb.Backbones(
            chains=[
                pb.Backbone(
                    chain=chain.id,
                    coordinates=(chain.coordinates + random.normal(0, blur, chain.coordinates.shape))
                    .astype("<f4")
                    .tobytes(),
                )
                for chain in chains
            ]
        )
    )


def test_codes_that_are_used_otherwise_and_codebooks_that_are_not_exchanged(
    chains: list[RealChain], few_codes: Path, tmp_path: Path
) -> None:
    gone = f"127.0.0.1:{free_port()}"
    with (
        running_server("--model", str(few_codes), "--poll-seconds", "0") as server,
        running_server("--model", str(few_codes), "--poll-seconds", "0") as other,
        stub_of(server) as stub,
        admin_of(server) as admin,
        watched(server, tmp_path, {"foldmint": [other.metrics, gone]}) as await_alerts,
    ):
        usual, blurred, noise = (_request(chains[:10], blur) for blur in (0.0, 1.0, 8.0))

        def sent(request: pb.TokenizeRequest) -> Callable[[], None]:
            def send() -> None:
                stub.Tokenize(request, timeout=60)
                time.sleep(0.4)

            return send

        def activated(version: str) -> None:
            admin.ActivateCodebook(cb.ActivateCodebookRequest(version=version), timeout=60)

        # What goes on as ever is not a reason for an alert; a server that is gone is.
        until = time.monotonic() + 16
        while time.monotonic() < until:
            sent(usual)()
        always = {"FoldmintDown", "FoldmintRepairUnknown"}
        assert await_alerts({("FoldmintDown", gone), ("FoldmintRepairUnknown", "")}, sent(usual)) == always
        drift = {("FoldmintDrift", ""), ("FoldmintDistanceDrift", "")}
        assert await_alerts(drift, sent(blurred)) >= {"FoldmintDrift", "FoldmintDistanceDrift"} | always
        with pytest.raises(grpc.RpcError):
            activated("no such")
        assert "FoldmintCodebooksDiffer" not in await_alerts({("FoldmintSwapFailed", server.metrics)}, sent(blurred))
        # Its own codebook alone is looked at, and of that all is new.
        activated("000002")
        await_alerts({("FoldmintDeadCodes", ""), ("FoldmintCodebooksDiffer", "")}, sent(noise))


def test_load_that_is_too_much_and_a_server_that_stops(
    chains: list[RealChain], few_codes: Path, tmp_path: Path
) -> None:
    large = _request(chains[:10])
    limits = ["--max-residues", "4000", "--max-queued-residues", "9000", "--threads", "1"]
    over = threading.Event()
    with (
        running_server("--model", str(few_codes), *limits) as server,
        stub_of(server) as stub,
        watched(server, tmp_path) as await_alerts,
    ):

        def without_end() -> Iterator[pb.TokenizeStreamRequest]:
            while not over.is_set():
                yield pb.TokenizeStreamRequest(request=large)

        def turned_away() -> None:
            with suppress(grpc.RpcError):
                stub.Tokenize(large, timeout=60)
            time.sleep(0.1)

        call = stub.TokenizeStream(without_end())
        reader = threading.Thread(target=_read, args=(call,))
        reader.start()
        try:
            fired = await_alerts({("FoldmintQueueNearLimit", server.metrics), ("FoldmintRejects", "")}, turned_away)
            assert not fired & {"FoldmintNotReady", "FoldmintDown", "FoldmintErrors", "FoldmintSwapFailed"}
            server.process.terminate()
            assert "FoldmintDown" not in await_alerts({("FoldmintNotReady", server.metrics)})
        finally:
            over.set()
            call.cancel()
            reader.join()


def _read(call: "Iterator[pb.TokenizeStreamResponse]") -> None:
    with suppress(grpc.RpcError):
        for _ in call:
            pass


def test_repairs_that_fail_or_do_not_come(tmp_path: Path) -> None:
    if shutil.which("prometheus-pushgateway") is None:
        missing("a Pushgateway", "`apt-get install prometheus-pushgateway` installs it")
    gateway = f"127.0.0.1:{free_port()}"
    command = ["prometheus-pushgateway", f"--web.listen-address={gateway}", "--log.level=error"]
    command += [f"--persistence.file={tmp_path / 'pushed'}"]  # Debian's has one that all share
    copies = tmp_path / "rules"
    copies.mkdir()
    rules = hastened([path for path in RULES if path.stem == "repair"], copies)

    def awaited(expected: set[str]) -> set[str]:
        until = time.monotonic() + PATIENCE
        while (found := {name for name, _ in firing(address)}) != expected and time.monotonic() < until:
            time.sleep(0.2)
        return found

    with (
        subprocess.Popen(command) as process,
        prometheus(gateway, tmp_path, rules, {"foldmint-repair": [gateway]}) as address,
    ):
        try:
            assert awaited({"FoldmintRepairUnknown"}) == {"FoldmintRepairUnknown"}
            url, now = f"http://{gateway}", time.time()
            JobMetrics.of_result("a", "success", now, 1.0, None).push(url)
            assert awaited(set()) == set()
            JobMetrics.of_result("b", "success", now - 17 * 86400, 1.0, None).push(url)
            assert awaited({"FoldmintRepairLate"}) == {"FoldmintRepairLate"}
            JobMetrics.of_result("a", "gate_failed", now, 1.0, None).push(url)
            both = {"FoldmintRepairLate", "FoldmintRepairFailed"}
            assert awaited(both) == both
            for store in "ab":
                JobMetrics.of_result(store, "success", now, 1.0, None).push(url)
            assert awaited(set()) == set()
        finally:
            process.terminate()
