"""How a server starts, what it refuses to start with, and how it stops."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.settings import read_settings
from foldmint_tokenizer.store.model_store import DEFAULT
from helpers.chains import RealChain
from helpers.servers.faults import faulty_server, held_up
from helpers.support import metrics_of, running_server, stub_of
from helpers.waiting import wait_until


def refused(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and error output of a server that does not start."""
    command = [sys.executable, "-m", "foldmint_server.cli", "--metrics-listen", "127.0.0.1:0"]
    finished = subprocess.run(
        [*command, "--admin-listen", "127.0.0.1:0", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
        timeout=180,
        check=False,
    )
    return finished.returncode, finished.stderr


def test_a_store_of_ones_own(tmp_path: Path, data: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "store")
    with running_server("--model", str(tmp_path / "store"), fresh=True) as server, stub_of(server) as stub:
        request = pb.TokenizeRequest(file=pb.StructureFile(content=(data / "1a8o.cif").read_bytes()))
        assert len(stub.Tokenize(request).chains[0].tokens) == 70


def test_a_damaged_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "store")
    with (tmp_path / "store/encoder.safetensors").open("r+b") as file:
        file.truncate(1000)
    code, text = refused("--model", str(tmp_path / "store"), "--listen", "127.0.0.1:0")
    assert code == 1
    assert "damaged" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_precision_that_the_device_does_not_have_is_refused() -> None:
    code, text = refused("--listen", "127.0.0.1:0", "--device", "cpu", "--precision", "tf32")
    assert (code, text) == (1, "foldmint-server: precision tf32 needs a CUDA device, not cpu\n")


@pytest.mark.slow
@pytest.mark.parametrize(("option", "others"), [("--listen", ()), ("--admin-listen", ("--listen", "127.0.0.1:0"))])
def test_a_port_in_use_is_refused(option: str, others: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = refused(option, f"127.0.0.1:{taken.getsockname()[1]}", *others)
    assert code == 1
    assert "address" in text.lower()
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--admin-listen", "nowhere"], "HOST:PORT"),
        (["--keep-versions", "2"], "--keep-versions"),
        (["--reservoir", "2000000"], "--reservoir"),
        (["--max-batch-residues", "-1"], "--max-batch-residues"),
        (["--max-queued-residues", "10"], "--max-queued-residues must be at least --max-residues"),
        (["--max-queued-detokenize-residues", "10"], "--max-detokenize-residues"),
        (["--config", "/no/such/file.toml"], "settings file not found"),
    ],
)
def test_settings_that_make_no_sense(arguments: list[str], word: str) -> None:
    code, text = refused(*arguments)
    assert code == 2
    assert word in text
    assert "Traceback" not in text


def test_settings_from_environment_and_file(tmp_path: Path) -> None:
    config = tmp_path / "foldmint.toml"
    config.write_text("max_residues = 1234\nmax_chains = 7\n")
    environment = {"FOLDMINT_MAX_CHAINS": "8", "FOLDMINT_MAX_UNPACKED_BYTES": "5000"}
    arguments = ["--config", str(config), "--max-unpacked-bytes", "6000"]
    with running_server(*arguments, environment=environment, fresh=True) as server, stub_of(server) as stub:
        limits = stub.GetModel(pb.GetModelRequest()).limits
    # The command line before the environment before the file.
    assert (limits.residues, limits.chains, limits.unpacked_bytes) == (1234, 8, 6000)


def test_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image, which is started without options."""
    monkeypatch.setenv("FOLDMINT_LISTEN", "0.0.0.0:1234")
    assert read_settings({}, None).listen == "0.0.0.0:1234"


def test_a_misspelled_setting_in_a_file_is_told(tmp_path: Path) -> None:
    config = tmp_path / "foldmint.toml"
    config.write_text("max_residue = 1234\n")
    code, text = refused("--config", str(config))
    assert code == 2
    assert "max_residue" in text


def test_stopping_finishes_what_was_admitted(chains: list[RealChain], tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    with faulty_server(faults) as server, stub_of(server) as stub:
        x = chains[0].coordinates
        request = pb.TokenizeRequest(backbones=pb.Backbones(chains=[pb.Backbone(coordinates=x.tobytes())]))
        with held_up(faults):
            calls = [stub.Tokenize.future(request, timeout=100) for _ in range(8)]
            wait_until(lambda: metrics_of(server)["foldmint_requests_in_flight"] == 8)
            server.process.terminate()
        assert [len(call.result().chains[0].tokens) for call in calls] == [len(x)] * 8
        assert server.process.wait(60) == 0


@pytest.mark.slow
def test_a_stream_open_while_stopping_ends_with_unavailable(chains: list[RealChain]) -> None:
    with running_server() as server, stub_of(server) as stub:
        x = chains[5].coordinates
        request = pb.TokenizeRequest(backbones=pb.Backbones(chains=[pb.Backbone(coordinates=x.tobytes())]))
        go_on = threading.Event()

        def items() -> Iterator[pb.TokenizeStreamRequest]:
            yield pb.TokenizeStreamRequest(id=1, request=request)
            go_on.wait(30)

        call = stub.TokenizeStream(items())
        assert next(call).id == 1
        server.process.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        go_on.set()
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(60) == 0
