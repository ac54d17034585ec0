"""Usage by caller: what each token's name was answered and refused, with no more names than are allowed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.metrics.callers import CallerUsage
from foldmint_server.security.bearer_tokens import AccessToken, Rate, Scope, digest_of, format_tokens
from helpers.chains import RealChain
from helpers.support import RunningServer, admin_of, metrics_of, request_of, running_server, stub_of
from helpers.waiting import wait_until


def token(name: str, *scopes: Scope, rate: Rate | None = None) -> AccessToken:
    return AccessToken(name, digest_of(f"{name}-token"), frozenset(scopes or ("tokenize",)), rate)


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {name}-token"),)


SLOW = token("slow", rate=Rate(0.01, 1))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[RunningServer, Path]]:
    """A server whose first three of four tokens have series of their own; anyone may tokenize."""
    file = tmp_path / "tokens.toml"
    file.write_text(format_tokens([token("alice"), SLOW, token("viewer", "read"), token("dora")]))
    arguments = ["--tokens-file", str(file), "--anonymous", "tokenize", "--max-caller-names", "3"]
    with running_server(
        *arguments, "--no-insecure-admin", "--reload-seconds", "0.1", "--tenant-key", "x-tenant"
    ) as server:
        yield server, file


def series(server: RunningServer, metric: str) -> dict[str, float]:
    """The values of a metric, by its labels as they are written."""
    return {
        name.removeprefix(metric)[1:-1]: value
        for name, value in metrics_of(server).items()
        if name.startswith(f"{metric}{{")
    }


def refused(call: Any, request: object, caller: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=bearer(caller))
    code: grpc.StatusCode = caught.value.code()
    return code.name


def test_a_caller_s_share_is_told_by_the_name_of_its_token(
    guarded: tuple[RunningServer, Path], short: list[RealChain]
) -> None:
    server, file = guarded
    first, second = request_of(short[0]), request_of(short[1])
    residues = [len(chain.sequence) for chain in short]
    names = ("alice", "slow", "viewer", "anonymous", "other")
    # From the start, so that the first increase is seen.
    assert series(server, "foldmint_caller_residues_total") == {f'caller="{name}"': 0 for name in names}
    with stub_of(server) as stub, admin_of(server) as admin:
        answered = stub.Tokenize(first, metadata=bearer("alice"))
        stub.Tokenize(second, metadata=bearer("alice"))
        stream = [pb.TokenizeStreamRequest(id=number, request=request_of(chain)) for number, chain in enumerate(short)]
        assert len(list(stub.TokenizeStream(iter(stream), metadata=bearer("alice")))) == len(short)
        stub.Detokenize(pb.DetokenizeRequest(tokens=answered.chains[0].tokens), metadata=bearer("alice"))
        # What callers say of themselves is no label.
        stub.Tokenize(first, metadata=(("x-tenant", "a-stranger-s-choice"),))
        stub.Tokenize(second, metadata=bearer("dora"))
        stub.Tokenize(second, metadata=bearer("slow"))
        assert refused(stub.Tokenize, second, "slow") == "RESOURCE_EXHAUSTED"
        assert refused(stub.Tokenize, second, "viewer") == "PERMISSION_DENIED"
        assert refused(stub.Tokenize, second, "nobody") == "UNAUTHENTICATED"
        assert refused(admin.GetUsage, cb.GetUsageRequest(), "dora") == "PERMISSION_DENIED"
        junk = pb.TokenizeRequest(file=pb.StructureFile(content=b"junk"))
        assert refused(stub.Tokenize, junk, "alice") == "INVALID_ARGUMENT"
        stub.GetModel(pb.GetModelRequest(), metadata=bearer("alice"))  # no structure
    with grpc.insecure_channel(server.address) as channel:
        raw: Any = channel.unary_unary("/foldmint.v1.TokenizerService/Tokenize")
        assert refused(raw, b"\xff\xff", "alice") == "INVALID_ARGUMENT"  # not a message

    assert series(server, "foldmint_caller_residues_total") == {
        'caller="alice"': residues[0] + residues[1] + sum(residues) + residues[0],
        'caller="slow"': residues[1],
        'caller="viewer"': 0,
        'caller="anonymous"': residues[0],
        'caller="other"': residues[1],
    }
    structures = {'caller="alice"': 3 + len(short), 'caller="slow"': 1, 'caller="viewer"': 0}
    structures |= {'caller="anonymous"': 1, 'caller="other"': 1}
    assert series(server, "foldmint_caller_structures_total") == structures
    assert series(server, "foldmint_caller_request_duration_seconds_count") == structures
    assert series(server, "foldmint_caller_refusals_total") == {
        'caller="slow",status="RESOURCE_EXHAUSTED"': 1,
        'caller="viewer",status="PERMISSION_DENIED"': 1,
        'caller="anonymous",status="UNAUTHENTICATED"': 1,
        'caller="other",status="PERMISSION_DENIED"': 1,
        'caller="alice",status="INVALID_ARGUMENT"': 2,
    }
    # A name that is new is not shown where there is no room, also if another's token is revoked.
    part = file.with_suffix(".part")
    part.write_text(format_tokens([token("erik"), token("dora")]))
    part.replace(file)
    with stub_of(server) as stub:
        wait_until(lambda: _allowed(stub, first, "erik"))
    assert series(server, "foldmint_caller_structures_total")['caller="other"'] == 2
    assert series(server, "foldmint_caller_structures_total").keys() == structures.keys()


def _allowed(stub: Any, request: pb.TokenizeRequest, name: str) -> bool:
    try:
        stub.Tokenize(request, metadata=bearer(name))
    except grpc.RpcError:
        return False
    return True


def test_calls_beyond_the_limits_count_for_their_caller(tmp_path: Path, short: list[RealChain]) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(format_tokens([token("alice")]))
    with (
        running_server("--tokens-file", str(file), "--max-calls-per-caller", "1") as server,
        stub_of(server) as stub,
    ):

        def one_then_wait() -> Iterator[pb.TokenizeStreamRequest]:
            yield pb.TokenizeStreamRequest(id=1, request=request_of(short[0]))
            wait_until(lambda: series(server, "foldmint_caller_refusals_total"))

        stream = stub.TokenizeStream(one_then_wait(), metadata=bearer("alice"))
        assert next(stream).response.chains
        assert refused(stub.Tokenize, request_of(short[0]), "alice") == "RESOURCE_EXHAUSTED"
        assert list(stream) == []
        assert series(server, "foldmint_caller_refusals_total") == {'caller="alice",status="RESOURCE_EXHAUSTED"': 1}


def test_names_are_bounded() -> None:
    registry = CollectorRegistry()
    usage = CallerUsage(registry, 2)
    usage.know(f"name{number}" for number in range(1000))
    usage.know(["later"])
    for number in range(1000):
        usage.answered(f"name{number}", 0.1)
        usage.add_residues(f"name{number}", 10)
        usage.refused(f"name{number}", "INTERNAL")
    for metric in ("structures_total", "request_duration_seconds_count"):
        values = {
            name: registry.get_sample_value(f"foldmint_caller_{metric}", {"caller": name})
            for name in ("name0", "name1", "name2", "later", "anonymous", "other")
        }
        assert values == {"name0": 1, "name1": 1, "name2": None, "later": None, "anonymous": 0, "other": 998}
    callers = {sample.labels["caller"] for family in registry.collect() for sample in family.samples}
    assert callers == {"name0", "name1", "anonymous", "other"}
