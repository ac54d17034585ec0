"""Several servers of one store, or of copies of it, and jobs of both clients that use them all."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.stress.servers import KillableServer
from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import codebook_pb2_grpc
from foldmint_client import AsyncClient, Backbone, Client, Tokens
from helpers.chains import RealChain
from helpers.forking import ForkedKillableServer

Results = list[tuple[Any, Any]]


def server_of(store: Path, name: str, *arguments: str) -> KillableServer:
    """A server, which does not follow its store, so that a test decides what is active where."""
    options = ("--model", str(store), "--server-name", name, "--poll-seconds", "0", "--insecure-admin")
    return ForkedKillableServer(*options, *arguments)


def backbone_of(chain: RealChain) -> Backbone:
    return Backbone(chain.coordinates, chain.residue_index, chain.id)


def target_of(servers: Iterable[KillableServer]) -> str:
    return ",".join(server.address for server in servers)


def activate(server: KillableServer, version: str) -> None:
    with grpc.insecure_channel(server.admin) as channel:
        stub = codebook_pb2_grpc.CodebookServiceStub(channel)
        stub.ActivateCodebook(cb.ActivateCodebookRequest(version=version), timeout=60)


def answered(server: KillableServer) -> int:
    """How many structures a server has answered on streams."""
    import urllib.request

    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    name = 'foldmint_requests_total{method="TokenizeStream",status="OK"}'
    return next(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(name))


def job(
    kind: str,
    target: str,
    structures: Iterable[Any],
    each: Callable[[int], object] = lambda _: None,
    options: dict[str, Any] | None = None,
    **keywords: Any,
) -> Results:
    """The results of tokenize_many, of the client of that kind; `each` is called with the number of each result."""
    results: Results = []

    def add(result: tuple[Any, Any]) -> None:
        results.append(result)
        each(len(results))

    async def run() -> None:
        async with AsyncClient(target, **(options or {})) as client:
            async for result in client.tokenize_many(slowly(structures), **keywords):
                await asyncio.to_thread(add, result)

    if kind == "async":
        asyncio.run(run())
        return results
    with Client(target, **(options or {})) as client:
        for result in client.tokenize_many(structures, **keywords):
            add(result)
    return results


async def slowly(structures: Iterable[Any]) -> AsyncIterator[Any]:
    """An async input."""
    for structure in structures:
        yield structure


def same_tokens(results: Results, expected: Sequence[list[int]]) -> Iterator[bool]:
    """Of each result, in order, whether it is that of its structure; keys are positions."""
    for position, (key, tokens) in enumerate(results):
        assert isinstance(tokens, Tokens), tokens
        yield key == position and tokens.chains[0].tokens.tolist() == expected[position % len(expected)]
