"""Versions that requests ask for and the server does not keep: loaded from its store, within bounds."""

import asyncio
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.codebooks.manager import CodebookLoader, CodebookManager, LoadedCodebook
from foldmint_server.codebooks.requested_versions import IN_USE_SECONDS, MOMENT_SECONDS, RequestedVersions
from foldmint_server.errors import Overloaded, VersionNotAvailable
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.registry import create_metrics
from foldmint_server.security.bearer_tokens import AccessToken, digest_of, format_tokens
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.model import CodebookVersion
from foldmint_tokenizer.store.model_store import Store
from helpers.chains import RealChain
from helpers.support import RunningServer, admin_of, request_of, running_server, stub_of
from helpers.waiting import wait_until

Tokens = Callable[[str], list[list[int]]]


def status_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details() or ""


def kept(server: RunningServer) -> set[str]:
    with admin_of(server) as admin:
        return {one.version for one in admin.ListCodebooks(cb.ListCodebooksRequest()).codebooks if one.kept}


def test_a_version_is_loaded_for_who_asks_for_it(
    own_versions: Path, short: list[RealChain], in_process: Tokens
) -> None:
    name = ("--server-name", "foldmint-7")
    with running_server("--model", str(own_versions), "--keep-versions", "3", *name) as server, stub_of(server) as stub:
        response = stub.Tokenize(request_of(short[0], "000005"), timeout=60)
        assert (response.codebook_version, list(response.chains[0].tokens)) == ("000005", in_process("000005")[0])
        assert response.codebook_digest == Store(own_versions).codebook("000005").digest
        about = stub.GetModel(pb.GetModelRequest())
        assert (about.codebook_version, about.encoder_digest) == ("000001", response.encoder_digest)
        assert stub.Tokenize(request_of(short[0]), timeout=60).codebook_version == "000001"

        # No more than may be kept, and none in the place of one that is in use.
        assert stub.Tokenize(request_of(short[0], "000006"), timeout=60).codebook_version == "000006"
        code, details = status_of(lambda: stub.Tokenize(request_of(short[0], "000007"), timeout=60))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert details == (
            "codebook version '000007' is not available on server foldmint-7: all versions that it may keep "
            "(--keep-versions) are in use; it keeps 000001, 000005, 000006"
        )
        assert kept(server) == {"000001", "000005", "000006"}

        # What the store does not have yet, it may have in a moment.
        code, details = status_of(lambda: stub.Detokenize(pb.DetokenizeRequest(tokens=[1], codebook_version="../x")))
        assert (code, "has no such version" in details) == (grpc.StatusCode.FAILED_PRECONDITION, True)


def test_a_version_that_appears_later_and_one_that_is_damaged(own_versions: Path, short: list[RealChain]) -> None:
    late, hidden = own_versions / "codebooks" / "000004", own_versions.parent / "000004"
    shutil.move(late, hidden)
    (own_versions / "codebooks" / "000003" / "codebook.safetensors").write_bytes(b"damaged")
    with running_server("--model", str(own_versions)) as server, stub_of(server) as stub:

        def answered(version: str) -> bool:
            items = iter([pb.TokenizeStreamRequest(request=request_of(short[0], version))])
            (answer,) = stub.TokenizeStream(items, timeout=60)
            assert answer.failure.code in (0, grpc.StatusCode.FAILED_PRECONDITION.value[0])
            return answer.response.codebook_version == version

        assert not answered("000004")
        shutil.move(hidden, late)
        wait_until(lambda: answered("000004"))
        assert (
            "cannot be loaded; see the server's log"
            in status_of(lambda: stub.Tokenize(request_of(short[0], "000003"), timeout=60))[1]
        )
        assert answered("000001")
        assert kept(server) == {"000001", "000004"}


def test_nothing_is_loaded_for_who_may_not_tokenize(own_versions: Path, short: list[RealChain], tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(format_tokens([AccessToken("ann", digest_of("reads"), frozenset({"read"}))]))
    options = ("--tokens-file", str(file), "--anonymous", "read")
    with running_server("--model", str(own_versions), *options) as server, stub_of(server) as stub:
        for metadata, code in (
            ((("authorization", "Bearer reads"),), grpc.StatusCode.PERMISSION_DENIED),
            ((), grpc.StatusCode.UNAUTHENTICATED),
        ):
            request = request_of(short[0], "000005")
            assert status_of(lambda: stub.Tokenize(request, metadata=metadata, timeout=60))[0] is code  # noqa: B023
        assert kept(server) == {"000001"}


class CountingStore(Store):
    """Counts how often its versions are listed."""

    listed = 0

    def versions(self) -> list[str]:
        self.listed += 1
        return super().versions()


class Bench:
    """The real parts, with a clock that a test sets, and loads that it may hold up."""

    def __init__(self, path: Path, keep: int) -> None:
        self.now = 100.0
        self.loads: Counter[str] = Counter()
        self.go = threading.Event()
        self.go.set()
        self.store = CountingStore(path)
        model = self.store.load()
        loader = CodebookLoader(model, [Engine(model.encoder)], None)

        def warm(codebook: CodebookVersion) -> LoadedCodebook:
            self.go.wait(60)
            self.loads[codebook.version] += 1
            return loader(codebook)

        usage = CodeUsage(model.config.codes, 60, lambda: self.now)
        metrics = create_metrics(CollectorRegistry())
        self.codebooks = CodebookManager(self.store, model.codebook, warm, keep, usage, metrics)
        self.requested = RequestedVersions(self.codebooks, "here", lambda: self.now)


@pytest.fixture
def bench(versions: Path) -> Iterator[Bench]:
    one = Bench(versions, keep=3)
    yield one
    one.codebooks.close()


async def test_who_asks_for_the_same_version_shares_a_load(bench: Bench) -> None:
    bench.go.clear()
    asking = [asyncio.create_task(bench.requested.resolve(version)) for version in ["000002"] * 20 + ["000003"] * 20]
    await asyncio.wait(asking, timeout=0.05)
    asking[0].cancel()  # the load goes on for the others
    bench.go.set()
    found = [await one for one in asking[1:]]
    assert [one.codebook_version for one in found] == ["000002"] * 19 + ["000003"] * 20
    assert bench.loads == {"000001": 1, "000002": 1, "000003": 1}
    assert (await bench.requested.resolve("000002")) is found[0]


async def test_what_the_store_lacks_does_not_make_it_busy(bench: Bench) -> None:
    for number in range(200):
        with pytest.raises(VersionNotAvailable, match="has no such version"):
            await bench.requested.resolve(f"unknown-{number}")
    assert bench.store.listed == 1
    bench.now += MOMENT_SECONDS + 1
    with pytest.raises(VersionNotAvailable):
        await bench.requested.resolve("unknown")
    assert bench.store.listed == 2


async def test_versions_in_use_are_not_dropped_for_others(bench: Bench) -> None:
    for version in ("000002", "000003"):
        await bench.requested.resolve(version)
    for number in range(4, 9):
        with pytest.raises(VersionNotAvailable, match="are in use"):
            await bench.requested.resolve(f"{number:06d}")
    assert bench.loads == {"000001": 1, "000002": 1, "000003": 1}
    bench.now += IN_USE_SECONDS - 1
    await bench.requested.resolve("000002")
    bench.now += 2
    assert (await bench.requested.resolve("000004")).codebook_version == "000004"
    assert set(bench.codebooks.kept) == {"000001", "000002", "000004"}
    assert bench.codebooks.active.codebook_version == "000001"


async def test_few_versions_are_loaded_at_a_time(bench: Bench) -> None:
    bench.go.clear()
    asking = [asyncio.create_task(bench.requested.resolve(f"{number:06d}")) for number in range(2, 9)]
    done, _ = await asyncio.wait(asking, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert {type(one.exception()) for one in done} == {Overloaded}
    bench.go.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert sum(bench.loads.values()) <= 5
    assert len(bench.codebooks.kept) <= 3
