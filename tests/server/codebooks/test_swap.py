"""A codebook is exchanged while requests go on: each has one version, from its admission to its answer."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import codebook_pb2_grpc
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_tokenizer import StructureDetokenizer
from foldmint_tokenizer.store.model_store import Store
from helpers.chains import RealChain
from helpers.servers.faults import faulty_server, held_up
from helpers.support import RunningServer, admin_of, metrics_of, request_of, stub_of
from helpers.waiting import wait_until

Stub = rpc.TokenizerServiceStub
Admin = codebook_pb2_grpc.CodebookServiceStub
Tokens = Callable[[str], list[list[int]]]
KEPT = 3


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "faults"


@pytest.fixture(scope="module")
def swapping(versions_copy: Path, faults: Path) -> Iterator[RunningServer]:
    """A server that keeps few versions."""
    with faulty_server(faults, "--model", str(versions_copy), "--keep-versions", str(KEPT)) as server:
        yield server


@pytest.fixture(scope="module")
def stub(swapping: RunningServer) -> Iterator[Stub]:
    with stub_of(swapping) as one:
        yield one


@pytest.fixture(scope="module")
def admin(swapping: RunningServer) -> Iterator[Admin]:
    with admin_of(swapping) as one:
        yield one


def activate(admin: Admin, *versions: str) -> None:
    for version in versions:
        assert admin.ActivateCodebook(cb.ActivateCodebookRequest(version=version)).codebook.version == version


def tokenized(stub: Stub, chain: RealChain, version: str = "") -> tuple[str, list[int]]:
    """The version that an answer states, and its tokens."""
    return told(stub.Tokenize(request_of(chain, version), timeout=60))


def told(response: pb.TokenizeResponse) -> tuple[str, list[int]]:
    return response.codebook_version, list(response.chains[0].tokens)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details() or ""


def test_the_versions_of_these_tests_differ(in_process: Tokens) -> None:
    """Or the other tests would hold for a server that swaps nothing."""
    first, second = (np.concatenate(in_process(version)) for version in ("000001", "000002"))
    assert (first != second).mean() > 0.9


def test_requests_get_the_active_version(stub: Stub, admin: Admin, short: list[RealChain], in_process: Tokens) -> None:
    for version in ("000001", "000002", "000001"):
        activate(admin, version)
        assert stub.GetModel(pb.GetModelRequest()).codebook_version == version
        for asked in ("", "ACTIVE"):
            assert tokenized(stub, short[0], asked) == (version, in_process(version)[0])


def test_get_model_tells_the_digest_of_what_is_active(stub: Stub, admin: Admin, versions: Path) -> None:
    for version in ("000001", "000002"):
        activate(admin, version)
        about = stub.GetModel(pb.GetModelRequest())
        assert about.codebook_digest == Store(versions).codebook(version).digest
        assert (about.model, about.sizes.codes, about.limits.residues) == ("versions", 4096, 100_000)


def test_a_pinned_version_is_served_if_there_is_room_for_it(
    stub: Stub, admin: Admin, short: list[RealChain], in_process: Tokens
) -> None:
    activate(admin, "000001", "000002", "000003")
    for version in ("000001", "000002", "000003"):
        assert tokenized(stub, short[1], version) == (version, in_process(version)[1])
    activate(admin, "000004")
    code, details = refusal(lambda: tokenized(stub, short[1], "000001"))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith("codebook version '000001' is not available on server ")
    assert details.endswith(
        ": all versions that it may keep (--keep-versions) are in use; it keeps 000002, 000003, 000004"
    )
    assert tokenized(stub, short[1], "000002") == ("000002", in_process("000002")[1])
    # What was active again counts as new.
    activate(admin, "000002", "000005")
    assert tokenized(stub, short[1], "000002") == ("000002", in_process("000002")[1])
    # Nobody requested 000004: it gives way.
    assert tokenized(stub, short[1], "000003") == ("000003", in_process("000003")[1])
    # On a stream, it is this structure that fails.
    items = [
        pb.TokenizeStreamRequest(id=place, request=request_of(short[1], version))
        for place, version in enumerate(("000001", "000003", "no such"))
    ]
    answers = {answer.id: answer for answer in stub.TokenizeStream(iter(items))}
    assert [answers[place].failure.code for place in (0, 2)] == [grpc.StatusCode.FAILED_PRECONDITION.value[0]] * 2
    assert told(answers[1].response) == ("000003", in_process("000003")[1])


def test_a_stream_keeps_the_version_that_it_began_with(
    stub: Stub, admin: Admin, short: list[RealChain], in_process: Tokens
) -> None:
    """Even when the server keeps it no more; and has another for what asks otherwise."""
    activate(admin, "000001")
    wanted: queue.Queue[str | None] = queue.Queue()

    def items() -> Iterator[pb.TokenizeStreamRequest]:
        while (version := wanted.get()) is not None:
            yield pb.TokenizeStreamRequest(request=request_of(short[2], version))

    call = stub.TokenizeStream(items())

    def answered(version: str) -> tuple[str, list[int]]:
        wanted.put(version)
        return told(next(call).response)

    assert answered("") == ("000001", in_process("000001")[2])
    for version in ("000002", "000003", "000004", "000005"):
        activate(admin, version)
        assert answered("") == ("000001", in_process("000001")[2])
        assert answered("ACTIVE") == (version, in_process(version)[2])
    assert answered("000001") == ("000001", in_process("000001")[2])
    assert answered("000004") == ("000004", in_process("000004")[2])
    wanted.put(None)
    assert list(call) == []
    (answer,) = stub.TokenizeStream(iter([pb.TokenizeStreamRequest(request=request_of(short[2]))]))
    assert told(answer.response) == ("000005", in_process("000005")[2])


def test_what_was_admitted_before_ends_on_its_version(
    swapping: RunningServer, faults: Path, stub: Stub, admin: Admin, short: list[RealChain], in_process: Tokens
) -> None:
    activate(admin, "000001")
    chain = short[4]
    with held_up(faults):
        before = [stub.Tokenize.future(request_of(chain), timeout=100) for _ in range(2)]
        wait_until(lambda: metrics_of(swapping)["foldmint_requests_in_flight"] == 2)
        activate(admin, "000002", "000003", "000004", "000005")
        after = stub.Tokenize.future(request_of(chain), timeout=100)
        wait_until(lambda: metrics_of(swapping)["foldmint_requests_in_flight"] == 3)
    assert told(after.result()) == ("000005", in_process("000005")[4])
    assert [told(call.result()) for call in before] == [("000001", in_process("000001")[4])] * 2


def test_tokens_of_a_kept_version_are_decoded_as_that_version(stub: Stub, admin: Admin, versions: Path) -> None:
    activate(admin, "000001", "000002", "000003")
    tokens = np.random.default_rng(0).integers(0, 1000, 30).tolist()
    decoded = {}
    for version in ("000001", "000002", "000003"):
        response = stub.Detokenize(pb.DetokenizeRequest(tokens=tokens, codebook_version=version))
        assert response.codebook_version == version
        decoded[version] = np.frombuffer(response.chains[0].coordinates, "<f4").reshape(-1, 3, 3)
        expected = StructureDetokenizer(Store(versions).load(version)).detokenize(tokens).chains[0]
        np.testing.assert_allclose(decoded[version], expected.coordinates, atol=1e-4)
    assert np.abs(decoded["000001"] - decoded["000002"]).max() > 1
    response = stub.Detokenize(pb.DetokenizeRequest(tokens=tokens))
    assert response.codebook_version == "000003"
    np.testing.assert_array_equal(
        np.frombuffer(response.chains[0].coordinates, "<f4").reshape(-1, 3, 3), decoded["000003"]
    )
    activate(admin, "000004")
    request = pb.DetokenizeRequest(tokens=tokens, codebook_version="000001")
    code, details = refusal(lambda: stub.Detokenize(request))
    assert (code, "'000001' is not available" in details) == (grpc.StatusCode.FAILED_PRECONDITION, True)


def test_what_prometheus_sees_of_a_swap(
    swapping: RunningServer, stub: Stub, admin: Admin, short: list[RealChain], versions: Path
) -> None:
    def seen(prefix: str) -> dict[str, float]:
        return {name: value for name, value in metrics_of(swapping).items() if name.startswith(prefix)}

    activate(admin, "000002", "000001")
    before, began = seen("foldmint_"), time.time()
    tokenized(stub, short[0])
    activate(admin, "000002")
    digest = Store(versions).codebook("000002").digest
    name = f'foldmint_codebook_info{{digest="{digest}",model="versions",version="000002"}}'
    assert seen("foldmint_codebook_info") == {name: 1.0}
    assert began <= metrics_of(swapping)["foldmint_codebook_activated_timestamp_seconds"] <= time.time()
    swaps = 'foldmint_codebook_swaps_total{outcome="activated"}'
    assert metrics_of(swapping)[swaps] == before[swaps] + 1
    # The window is empty, and no hit is set back.
    assert metrics_of(swapping)["foldmint_window_residues"] == 0
    hits = "foldmint_code_hits_total"
    assert sum(seen(hits).values()) == sum(value for key, value in before.items() if key.startswith(hits)) + 43
    # What is answered under another version than the active one is not a hit of a code of the active one.
    tokenized(stub, short[0], "000001")
    assert metrics_of(swapping)["foldmint_window_residues"] == 0
    tokenized(stub, short[1])
    assert metrics_of(swapping)["foldmint_window_residues"] == len(short[1].sequence)
    assert admin.ActivateCodebook(cb.ActivateCodebookRequest(version="000002")).previous_version == "000002"
    assert metrics_of(swapping)["foldmint_window_residues"] == len(short[1].sequence)
    assert metrics_of(swapping)[swaps] == before[swaps] + 1
