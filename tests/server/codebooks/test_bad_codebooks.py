"""A version of the codebook that cannot be used is refused with its reason, and the old one serves on."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
import torch
from safetensors.torch import load_file, save_file

from foldmint.v1 import codebook_pb2 as pb
from foldmint.v1 import codebook_pb2_grpc as rpc
from foldmint_tokenizer.store import DEFAULT
from helpers.chains import RealChain
from helpers.support import RunningServer, admin_of, metrics_of, request_of, running_server, stub_of

OUT = json.loads((DEFAULT / "model.json").read_text())["sizes"]["out"]

Tokens = Callable[[str], list[list[int]]]
FAILED = grpc.StatusCode.FAILED_PRECONDITION


class Operated(NamedTuple):
    """A server, its store, its log, and a stub of its operators' service."""

    server: RunningServer
    store: Path
    log: Path
    admin: rpc.CodebookServiceStub


@pytest.fixture(scope="module")
def operated(versions_copy: Path) -> Iterator[Operated]:
    log = versions_copy.parent / "log"
    arguments = ["--model", str(versions_copy), "--poll-seconds", "0"]
    with running_server(*arguments, log=log) as server, admin_of(server) as admin:
        yield Operated(server, versions_copy, log, admin)


def activate(admin: rpc.CodebookServiceStub, *versions: str) -> None:
    for version in versions:
        assert admin.ActivateCodebook(pb.ActivateCodebookRequest(version=version), timeout=60).codebook.active


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details() or ""


def swaps(server: RunningServer) -> dict[str, float]:
    found = metrics_of(server)
    outcomes = ("activated", "rolled_back", "refused")
    return {outcome: found[f'foldmint_codebook_swaps_total{{outcome="{outcome}"}}'] for outcome in outcomes}


def _made(operated: Operated, version: str, change: Callable[[Path], object]) -> str:
    """A version of the store, made of 000008 by a change of its folder."""
    folder = operated.store / "codebooks" / version
    shutil.copytree(operated.store / "codebooks/000008", folder)
    change(folder)
    return version


def _tensors(change: Callable[[dict[str, torch.Tensor]], object], *, signed: bool = True) -> Callable[[Path], None]:
    """Change the tensors of a version, and sign for them in the manifest."""

    def changed(folder: Path) -> None:
        tensors = load_file(folder / "codebook.safetensors")
        change(tensors)
        save_file(tensors, folder / "codebook.safetensors")
        if signed:
            digest = hashlib.sha256((folder / "codebook.safetensors").read_bytes()).hexdigest()
            _manifest("codebook_sha256", digest)(folder)

    return changed


def _manifest(key: str, value: str) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))

    return changed


def _truncated(folder: Path) -> None:
    with (folder / "codebook.safetensors").open("r+b") as file:
        file.truncate(100_000)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncated, "is damaged: its SHA-256 is"),
    "corrupt": (_tensors(lambda t: t["embeddings"].__setitem__(0, 1.0), signed=False), "is damaged"),
    "wrong-shaped": (
        _tensors(lambda t: t.update(embeddings=t["embeddings"][:, 1:].contiguous())),
        f"embeddings has shape (4096, {OUT - 1}), expected (4096, {OUT})",
    ),
    "NaN": (_tensors(lambda t: t["embeddings"].__setitem__((7, 7), torch.nan)), "not finite floating-point numbers"),
    "huge": (_tensors(lambda t: t["embeddings"].__setitem__(7, 1e30)), "too large"),
    "of another encoder": (_manifest("encoder_sha256", "0" * 64), "belongs to another encoder"),
    "of another decoder": (_manifest("decoder_sha256", "0" * 64), "belongs to another decoder"),
    "without its tensors": (lambda folder: (folder / "codebook.safetensors").unlink(), "cannot be read"),
    "half-uploaded": (lambda folder: (folder / "manifest.json").unlink(), "is incomplete: it has no manifest"),
    "of a broken manifest": (lambda folder: (folder / "manifest.json").write_text("{"), "is not valid JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_version_is_refused_with_its_reason_and_the_old_one_serves_on(
    operated: Operated, short: list[RealChain], in_process: Tokens, name: str
) -> None:
    activate(operated.admin, "000001")
    change, reason = BAD[name]
    version = _made(operated, f"000{100 + list(BAD).index(name)}", change)
    before = swaps(operated.server)
    try:
        code, details = refusal(lambda: activate(operated.admin, version))
        listed = {one.version for one in operated.admin.ListCodebooks(pb.ListCodebooksRequest()).codebooks}
    finally:
        shutil.rmtree(operated.store / "codebooks" / version)
    assert code == FAILED
    assert reason in details
    told = [json.loads(line) for line in operated.log.read_text().splitlines()]
    (entry,) = [line for line in told if line.get("version") == version and line["event"] == "codebook refused"]
    assert (entry["reason"], entry["serving"], entry["level"]) == (details, "000001", "error")
    assert swaps(operated.server) == before | {"refused": before["refused"] + 1}
    # One that is not half there is listed, for an operator to see.
    assert (version in listed) == (name != "half-uploaded")
    with stub_of(operated.server) as stub:
        response = stub.Tokenize(request_of(short[0]))
    assert (response.codebook_version, list(response.chains[0].tokens)) == ("000001", in_process("000001")[0])


def test_a_store_whose_encoder_was_exchanged_is_refused(operated: Operated) -> None:
    """It fits its own files, and not the encoder that this server runs."""
    activate(operated.admin, "000001")
    about = json.loads((operated.store / "model.json").read_text())
    version = _made(operated, "000200", _manifest("encoder_sha256", "1" * 64))
    try:
        (operated.store / "model.json").write_text(json.dumps(about | {"encoder_sha256": "1" * 64}))
        code, details = refusal(lambda: activate(operated.admin, version))
    finally:
        (operated.store / "model.json").write_text(json.dumps(about))
        shutil.rmtree(operated.store / "codebooks" / version)
    assert (code, details) == (FAILED, "codebook 000200 belongs to another encoder than this server runs")


def test_a_store_that_is_gone(operated: Operated, short: list[RealChain], in_process: Tokens) -> None:
    """The server serves on, and what is kept; nothing is activated that the store would not say after a restart."""
    admin = operated.admin
    activate(admin, "000001", "000002", "000003")
    away = operated.store.with_name("away")
    operated.store.rename(away)
    try:
        for call in (
            lambda: activate(admin, "000007"),
            lambda: activate(admin, "000002"),
            lambda: admin.RollbackCodebook(pb.RollbackCodebookRequest()),
            lambda: admin.ListCodebooks(pb.ListCodebooksRequest()),
            lambda: admin.GetCodebook(pb.GetCodebookRequest(version="000007")),
        ):
            code, details = refusal(call)
            assert code == FAILED
            assert "cannot be read" in details
        assert not operated.store.exists()
        assert json.loads(admin.GetCodebook(pb.GetCodebookRequest()).manifest)["version"] == "000003"
        with stub_of(operated.server) as stub:
            for asked, version in (("", "000003"), ("000002", "000002")):
                response = stub.Tokenize(request_of(short[0], asked))
                assert (response.codebook_version, list(response.chains[0].tokens)) == (version, in_process(version)[0])
    finally:
        away.rename(operated.store)
    activate(admin, "000007")
