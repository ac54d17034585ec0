"""The load generator's process: reads a line of JSON, sends that load, writes a line of JSON.

python -m benchmarks.baselines.client chains.parquet
"""

import base64
import http.client
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pyarrow.parquet as pq

from benchmarks.baselines.load import Part, Sent, Task, task_of
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_client import Backbone, Client, Tokens

# One connection per client, as for clients on separate machines.
_OWN = (("grpc.use_local_subchannel_pool", 1),)
_SIZES = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_CONNECTIONS = 16
Structure = list[Backbone]
Send = Callable[[int], int]
"""Sends a structure, by its number; returns how many tokens came back."""


def main() -> None:
    """Answer until the input ends."""
    chains = read(Path(sys.argv[1]))
    for line in sys.stdin:
        task = task_of(line)
        structures = [[_cut(chains[part.chain], part) for part in parts] for parts in task.structures]
        if task.kind == "stream":
            sent = stream(task.address, structures)
        elif task.rate:
            sent = offered(task, structures)
        else:
            sent = calls(task, structures)
        print(json.dumps(asdict(sent)), flush=True)


def read(path: Path) -> list[Backbone]:
    """The chains of a set."""
    return [
        Backbone(
            np.array(row["coordinates"], np.float32).reshape(-1, 3, 3),
            np.array(row["residue_index"], np.int32),
            chain=row["id"],
            sequence=row["sequence"],
        )
        for row in pq.read_table(path).to_pylist()
    ]


def stream(address: str, structures: list[Structure]) -> Sent:
    """All over one stream, by `Client.tokenize_many`."""
    with Client(address) as client:
        client.model()
        began, used = time.perf_counter(), time.process_time()
        results = [result for _, result in client.tokenize_many(structures)]
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return Sent(seconds, cpu, [], sum(map(_count, results)))


def calls(task: Task, structures: list[Structure]) -> Sent:
    """Clients that each send the next structure as soon as their last is answered."""
    numbers, lock = iter(range(len(structures))), threading.Lock()
    each, tokens = [0.0] * len(structures), [0] * len(structures)
    failed: list[Exception] = []

    def work(send: Send) -> None:
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None or failed:
                    return
                began = time.perf_counter()
                tokens[number] = send(number)
                each[number] = time.perf_counter() - began
        except Exception as error:  # noqa: BLE001 (raised below, in the main thread)
            failed.append(error)

    with ExitStack() as open_ones:
        sends = _KINDS[task.kind](task, structures, open_ones)
        threads = [threading.Thread(target=work, args=(send,)) for send in sends]
        began, used = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
    if failed:
        raise failed[0]
    return Sent(seconds, cpu, each, sum(tokens))


def offered(task: Task, structures: list[Structure]) -> Sent:
    """Structures sent at a rate; what is not answered in time is given up.

    Raises RuntimeError if the clients were too few for the rate.
    """
    numbers, lock = iter(range(len(structures))), threading.Lock()
    each: list[float] = []
    outcomes = Counter[str](answered=0, refused=0, late=0, failed=0)
    tokens = behind = 0.0

    def work(send: Send) -> None:
        nonlocal tokens, behind
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            due = began + number / task.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            count, outcome, sent = 0, "answered", time.perf_counter()
            try:
                count = send(number)
            except Refused:
                outcome = "refused"
            except TimeoutError:
                outcome = "late"
            except Exception:  # noqa: BLE001 (whatever it is, the structure has no tokens)
                outcome = "failed"
            seconds = time.perf_counter() - due
            with lock:
                behind = max(behind, sent - due)
                tokens += count
                outcomes[outcome if outcome != "answered" or seconds <= task.deadline else "late"] += 1
                if outcome == "answered":
                    each.append(seconds)

    with ExitStack() as open_ones:
        threads = [
            threading.Thread(target=work, args=(send,)) for send in _KINDS[task.kind](task, structures, open_ones)
        ]
        began, used = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
    if behind > task.deadline / 2:
        raise RuntimeError(f"structures were sent up to {behind:.1f} s too late: more clients are needed")
    return Sent(seconds, cpu, each, int(tokens), dict(outcomes))


class Refused(Exception):
    """The server says that it has too much to do."""


def _unary(task: Task, structures: Sequence[Structure], open_ones: ExitStack) -> list[Send]:
    def send(client: Client, number: int) -> int:
        return _count(client.tokenize(structures[number]))

    clients = [open_ones.enter_context(Client(task.address, channel_options=_OWN)) for _ in range(task.clients)]
    for client in clients:
        client.model()  # connects
    return [partial(send, client) for client in clients]


def _grpc(task: Task, structures: Sequence[Structure], open_ones: ExitStack) -> list[Send]:
    requests = [message(structure) for structure in structures]

    def send(stub: rpc.TokenizerServiceStub, number: int) -> int:
        try:
            response = stub.Tokenize(requests[number], timeout=task.deadline)
        except grpc.RpcError as error:
            match error.code():
                case grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise Refused from error
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise TimeoutError from error
            raise
        return sum(len(chain.tokens) for chain in response.chains)

    # gRPC sends many calls over one connection; HTTP/1.1 sends one at a time.
    connections = min(task.clients, _CONNECTIONS) if task.rate else task.clients
    channels = [
        open_ones.enter_context(grpc.insecure_channel(task.address, [*_OWN, *_SIZES])) for _ in range(connections)
    ]
    for channel in channels:
        grpc.channel_ready_future(channel).result(60)
    stubs = [rpc.TokenizerServiceStub(channel) for channel in channels]
    return [partial(send, stubs[number % connections]) for number in range(task.clients)]


def _http(task: Task, structures: Sequence[Structure], open_ones: ExitStack) -> list[Send]:
    bodies = [body(structure) for structure in structures]

    def send(connection: http.client.HTTPConnection, number: int) -> int:
        try:
            connection.request("POST", "/predict", bodies[number], {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except OSError:
            connection.close()  # the next structure opens it again
            raise
        if response.status in (429, 503):
            raise Refused
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {content[:500]!r}")
        return sum(len(base64.b64decode(tokens)) // 2 for tokens in json.loads(content)["tokens"])

    connections = [http.client.HTTPConnection(task.address, timeout=task.deadline) for _ in range(task.clients)]
    for connection in connections:
        open_ones.callback(connection.close)
        connection.connect()
    return [partial(send, connection) for connection in connections]


_KINDS: dict[str, Callable[[Task, Sequence[Structure], ExitStack], list[Send]]] = {
    "unary": _unary,
    "grpc": _grpc,
    "http": _http,
}


def message(structure: Structure) -> pb.TokenizeRequest:
    """The request of the contract."""
    chains = [
        pb.Backbone(
            chain=chain.chain,
            coordinates=chain.coordinates.tobytes(),
            residue_index=np.asarray(chain.residue_index).tolist(),
            sequence=chain.sequence,
        )
        for chain in structure
    ]
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=chains))


def body(structure: Structure) -> bytes:
    """The same as JSON, its arrays packed."""
    chains = [
        {
            "coordinates": base64.b64encode(chain.coordinates.tobytes()).decode(),
            "residue_index": base64.b64encode(np.asarray(chain.residue_index, "<i4").tobytes()).decode(),
        }
        for chain in structure
    ]
    return json.dumps({"chains": chains}).encode()


def _cut(chain: Backbone, part: Part) -> Backbone:
    span = slice(part.start, part.stop)
    index = np.asarray(chain.residue_index)[span]
    return Backbone(np.ascontiguousarray(chain.coordinates[span]), index, chain.chain, chain.sequence[span])


def _count(result: object) -> int:
    if not isinstance(result, Tokens):
        raise result if isinstance(result, Exception) else TypeError(f"{result!r} are not tokens")
    return sum(len(chain.tokens) for chain in result.chains)


if __name__ == "__main__":
    main()
