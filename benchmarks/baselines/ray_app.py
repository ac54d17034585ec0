"""The default model in Ray Serve, over gRPC, with foldmint-server's own API.

.peers/bin/python -m benchmarks.baselines.ray_app --threads 2 --batch 8
"""

import asyncio
import signal
import threading
from pathlib import Path
from typing import Annotated

import ray
import typer
from ray import serve
from ray.serve.config import gRPCOptions

from benchmarks.baselines.model import BATCH_WAIT, BatchModel, Parsed, free_port, parsed
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.rpc.requests import parse_backbones
from foldmint_server.rpc.responses import chain_message
from foldmint_tokenizer import Limits, TokenizedChain

_ADD = "foldmint.v1.tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server"
_MOST_AT_ONCE = 256  # requests that the replica takes: more than any load has


@serve.deployment(max_ongoing_requests=_MOST_AT_ONCE, ray_actor_options={"num_cpus": 1})
class Tokenizer:
    """Parse in a thread, batch by Ray Serve, compute in a thread. One replica: it has all threads."""

    def __init__(self, threads: int, batch: int) -> None:
        self._model = BatchModel(threads)
        self._batched.set_max_batch_size(batch)

    async def Tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeResponse:  # noqa: N802 (the contract's name)
        """Answer one structure."""
        one = await asyncio.to_thread(lambda: parsed(parse_backbones(request, Limits()).chains))
        chains = await self._batched(one)
        return pb.TokenizeResponse(model=self._model.name, chains=[chain_message(chain) for chain in chains])

    @serve.batch(batch_wait_timeout_s=BATCH_WAIT)
    async def _batched(self, batch: list[Parsed]) -> list[list[TokenizedChain]]:
        return await asyncio.to_thread(self._model.tokenize, batch)


def main(
    threads: Annotated[int, typer.Option()] = 1,
    batch: Annotated[int, typer.Option(help="Most structures of a batch.")] = 8,
) -> None:
    """Serve until SIGTERM; say where once ready."""
    port = free_port()
    stopped = threading.Event()
    # Ray's processes come with its own names of modules, and find ours where this one does.
    ray.init(
        num_cpus=max(2, threads),
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}},
    )
    try:
        serve.start(
            grpc_options=gRPCOptions(port=port, grpc_servicer_functions=[_ADD]),
            http_options={"port": free_port()},
        )
        serve.run(Tokenizer.bind(threads, batch), name="foldmint")  # type: ignore[attr-defined]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        print(f"listening on 127.0.0.1:{port}", flush=True)
        stopped.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    typer.run(main)
