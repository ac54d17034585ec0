"""Jobs that use several servers: every structure once, in order, and all of one version, whatever happens to them."""

import itertools
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.stress.servers import KillableServer, free_ports
from foldmint_client import FailedPrecondition, Unavailable
from foldmint_client.cli.main import app
from foldmint_client.client import Client
from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.store.model_store import Store, create_store, load_model
from helpers.chains import RealChain
from helpers.servers.fleet import activate, answered, backbone_of, job, same_tokens, server_of, target_of
from helpers.waiting import PATIENCE

pytestmark = pytest.mark.slow

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
COUNT = 240


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions, whose codes differ, the first active."""
    path = tmp_path_factory.mktemp("fleet") / "store"
    model = load_model()
    codebook = model.codebook.codebook
    create_store(path, name="fleet", encoder=model.encoder, codebook=codebook, about={})
    reversed_codes = Codebook(*(part.flip(0) for part in codebook))
    Store(path).publish(reversed_codes, parent="000001", decoder_rows=None, about={})
    return path


@pytest.fixture(scope="module")
def short(chains: list[RealChain]) -> list[RealChain]:
    return sorted(chains, key=lambda chain: len(chain.sequence))[:5]


@pytest.fixture(scope="module")
def expected(store: Path, short: list[RealChain]) -> dict[str, list[list[int]]]:
    """The tokens of the short chains in process, of each version."""
    return {
        version: [
            StructureTokenizer(Store(store).load(version))
            .tokenize(backbone(chain.coordinates, chain.residue_index))[0]
            .tokens.tolist()
            for chain in short
        ]
        for version in ("000001", "000002")
    }


@pytest.fixture(scope="module")
def structures(short: list[RealChain]) -> list[Any]:
    return [backbone_of(short[number % len(short)]) for number in range(COUNT)]


@pytest.fixture(scope="module")
def shared(store: Path) -> Iterator[list[KillableServer]]:
    """Three servers, in a list that each test leaves as it found it: all running, with the first version active."""
    with server_of(store, "a") as a, server_of(store, "b") as b, server_of(store, "c") as c:
        yield [a, b, c]


@pytest.fixture
def servers(shared: list[KillableServer], store: Path) -> Iterator[list[KillableServer]]:
    yield shared
    Store(store).activate("000001")
    for server in shared:
        if not server.running:
            server.start()
        activate(server, "000001")


def versions(results: list[tuple[Any, Any]]) -> set[str]:
    return {tokens.codebook_version for _, tokens in results}


@KINDS
def test_one_is_killed_and_one_swapped_in_the_middle(
    kind: str, servers: list[KillableServer], structures: list[Any], expected: dict[str, list[list[int]]]
) -> None:
    a, b, c = servers
    pulled = 0

    def until_all_have_work() -> Iterator[Any]:
        """The structures, and then more until the server that was killed has answered some again."""
        nonlocal pulled
        end = time.monotonic() + PATIENCE
        for number in itertools.count():
            if number >= COUNT and number % 50 == 0 and (answered(b) or time.monotonic() > end):
                return
            pulled += 1
            yield structures[number % COUNT]

    def each(number: int) -> None:
        if number == 50:
            activate(c, "000002")
        if number == 80:
            assert answered(b) > 0
            b.kill()
        if number == 150:
            b.start()  # with what is active in the store by now

    before = [answered(server) for server in (a, c)]
    results = job(kind, target_of(servers), until_all_have_work(), each, in_flight=32)
    assert len(results) == pulled
    assert all(same_tokens(results, expected["000001"]))
    assert versions(results) == {"000001"}
    assert answered(b) > 0
    assert all(answered(server) > count for server, count in zip((a, c), before, strict=True))


@KINDS
def test_the_first_answer_decides_where_servers_differ(
    kind: str, servers: list[KillableServer], structures: list[Any], expected: dict[str, list[list[int]]]
) -> None:
    """The first server of the list has the first version, the others the second."""
    for server in servers[1:]:
        activate(server, "000002")
    before = [answered(server) for server in servers]
    results = job(kind, target_of(servers), structures, in_flight=24)
    assert all(same_tokens(results, expected["000001"]))
    assert all(answered(server) > count for server, count in zip(servers, before, strict=True))
    results = job(kind, target_of(servers[::-1]), structures[:40])
    assert all(same_tokens(results, expected["000002"]))
    # ACTIVE follows each server.
    results = job(kind, target_of(servers), structures, codebook_version="ACTIVE")
    assert versions(results) == {"000001", "000002"}


@KINDS
def test_a_server_without_the_version_gets_no_work(
    kind: str,
    store: Path,
    tmp_path: Path,
    servers: list[KillableServer],
    structures: list[Any],
    expected: dict[str, list[list[int]]],
) -> None:
    """Neither one whose store lacks it, nor one whose version of that number is another."""
    lacking, other = tmp_path / "lacking", tmp_path / "other"
    model = load_model()
    codebook = model.codebook.codebook
    for path in (lacking, other):
        create_store(path, name="fleet", encoder=model.encoder, codebook=codebook, about={})
    Store(other).publish(
        Codebook(*(part.roll(1, 0) for part in codebook)), parent="000001", decoder_rows=None, about={}
    )
    with server_of(lacking, "without") as one, server_of(other, "differs") as two:
        activate(servers[0], "000002")
        target = target_of([servers[0], one, two])
        results = job(kind, target, structures[:120], in_flight=24)
        assert all(same_tokens(results, expected["000002"]))
        assert versions(results) == {"000002"}
        # The same, pinned; and the one that has it comes last.
        target = target_of([one, two, servers[0]])
        pinned = results[0][1].version
        assert pinned.codebook_digest == Store(store).codebook("000002").digest
        again = job(kind, target, structures[:60], in_flight=24, codebook_version=pinned)
        assert all(same_tokens(again, expected["000002"]))
        # If nobody has it, each structure fails, with the name of a server.
        failed = job(kind, target_of([one, two]), structures[:10], codebook_version=pinned)
        assert [type(error) for _, error in failed] == [FailedPrecondition] * 10
        for _, error in failed:
            assert one.address in str(error) or two.address in str(error)
            assert "000002" in str(error)
        # Calls of one structure too.
        with Client(target) as client:
            for _ in range(6):
                assert client.tokenize(structures[0], codebook_version=pinned).version == pinned
        with Client(one.address) as client, pytest.raises(FailedPrecondition, match="server without: its store has no"):
            client.tokenize(structures[0], codebook_version="000002")
        with Client(two.address) as client, pytest.raises(FailedPrecondition, match="digest of codebook 000002"):
            client.tokenize(structures[0], codebook_version=pinned)


@KINDS
def test_servers_that_cannot_be_reached(
    kind: str, servers: list[KillableServer], structures: list[Any], expected: dict[str, list[list[int]]]
) -> None:
    nobody = [f"127.0.0.1:{port}" for port in free_ports(2)]
    target = f"{nobody[0]},{servers[1].address},{nobody[1]}"
    results = job(kind, target, structures[:40])
    assert all(same_tokens(results, expected["000001"]))
    with Client(target) as client:
        assert {client.model().model for _ in range(4)} == {"fleet"}
    with pytest.raises(Unavailable) as caught:
        job(kind, ",".join(nobody), structures[:4])
    assert any(str(caught.value).startswith(address) for address in nobody)
    with Client(",".join(nobody)) as client, pytest.raises(Unavailable, match=r"^127\.0\.0\.1:"):
        client.model()


@KINDS
def test_pick_first_uses_another_only_if_one_fails(
    kind: str, servers: list[KillableServer], structures: list[Any], expected: dict[str, list[list[int]]]
) -> None:
    a, b, c = servers
    before = [answered(server) for server in servers]
    results = job(
        kind,
        target_of(servers),
        structures,
        lambda number: a.kill() if number == 60 else None,
        {"balance": "pick_first"},
        in_flight=16,
    )
    assert all(same_tokens(results, expected["000001"]))
    assert answered(b) >= before[1] + COUNT - 60 - 16 - 1
    assert answered(c) == before[2]


@KINDS
def test_memory_is_bounded_whatever_the_number_of_servers(
    kind: str, servers: list[KillableServer], structures: list[Any]
) -> None:
    pulled = returned = most = 0

    def watched() -> Iterator[Any]:
        nonlocal pulled, most
        for structure in structures:
            pulled += 1
            most = max(most, pulled - returned)
            yield structure

    def each(number: int) -> None:
        nonlocal returned
        returned = number

    assert len(job(kind, target_of(servers), watched(), each, in_flight=9)) == COUNT
    assert most <= 10


def test_the_command_with_several_servers_and_resumed_on_others(
    store: Path, servers: list[KillableServer], tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = servers
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        shutil.copy(data / "1a8o.cif", f"{number:02}.cif")
    names = sorted(path.name for path in tmp_path.glob("*.cif"))

    def tokenize(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["tokenize", "--json", *arguments])
        return result.exit_code, json.loads(result.stdout), result.stderr

    activate(b, "000002")
    activate(c, "000002")
    code, summary, _ = tokenize("--server", target_of([a, b, c]), "-o", "out.jsonl", *names[:10])
    assert (code, summary["tokenized"]) == (0, 10)
    a.stop()
    code, summary, _ = tokenize("--server", target_of([b, c]), "--resume", "-o", "out.jsonl", *names)
    assert (code, summary["earlier"], summary["tokenized"]) == (0, 9, 15)  # the last is asked for again
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == names
    tokens = StructureTokenizer(Store(store).load("000001")).tokenize(data / "1a8o.cif")[0].tokens.tolist()
    assert {(row["codebook_version"], row["codebook_digest"], tuple(row["tokens"])) for row in rows} == {
        ("000001", Store(store).codebook("000001").digest, tuple(tokens))
    }
    code = CliRunner().invoke(
        app, ["tokenize", "--server", f"127.0.0.1:{free_ports(1)[0]},nowhere.invalid:1", names[0]]
    )
    assert code.exit_code == 3
    assert "nothing listens on port" in code.stderr
    assert "nowhere.invalid" in code.stderr


def test_a_resumed_output_takes_no_tokens_of_another_codebook(
    store: Path, tmp_path: Path, servers: list[KillableServer], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    model = load_model()
    create_store(
        other,
        name="fleet",
        encoder=model.encoder,
        codebook=Codebook(*(p.flip(0) for p in model.codebook.codebook)),
        about={},
    )
    shutil.copy(data / "1a8o.cif", "1.cif")
    shutil.copy(data / "1a8o.cif", "2.cif")
    shutil.copy(data / "1a8o.cif", "3.cif")
    for form in (["-o", "out.jsonl"], ["--format", "parquet", "--rows-per-shard", "9", "-o", "shards"]):
        first = CliRunner().invoke(app, ["tokenize", "--server", servers[0].address, *form, "1.cif", "2.cif"])
        assert first.exit_code == 0, first.stderr
        with server_of(other, "other") as differs:
            resumed = CliRunner().invoke(
                app, ["tokenize", "--server", differs.address, "--resume", *form, "1.cif", "2.cif", "3.cif"]
            )
        assert resumed.exit_code == 1
        assert "digest of codebook 000001" in resumed.stderr
