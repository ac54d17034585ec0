"""A mixed load that runs until it is stopped, and checks every answer."""

import gzip
import itertools
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np

from benchmarks.stress.files import file
from benchmarks.stress.jobs import Stretch, structure
from benchmarks.stress.servers import KillableServer
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_client import Backbone, Client, FoldmintError, InvalidStructure, Tokens

_DECODED = 24  # residues


class MixedLoad:
    """Callers of a server, each a thread, while it is entered.

    A stream that lasts, streams that begin anew, short ones that are left in the middle, unary calls of coordinates and
    of files, bad files, tokens to decode, and scrapes of the metrics and of the page. answers: counted by caller.
    residues: of all answers with tokens. wrong: what was not as it should be. stretches: with the tokens of each
    version.
    """

    def __init__(
        self, server: KillableServer, stretches: list[Stretch], files: dict[Path, dict[str, list[list[int]]]]
    ) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._server, self._stretches, self._files = server, stretches, files
        self._over = threading.Event()
        callers = (
            self._lasting,
            self._anew,
            self._leaving,
            self._unary,
            self._of_files,
            self._bad,
            self._decoding,
            self._scraping,
        )
        self._threads = [
            threading.Thread(target=self._run, args=(caller,), name=caller.__name__, daemon=True) for caller in callers
        ]

    def __enter__(self) -> "MixedLoad":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)
            if thread.is_alive():
                self.wrong.append(f"{thread.name} does not end")

    def _run(self, caller: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                caller()
        except Exception as error:  # noqa: BLE001 (raised in the thread that entered)
            self.wrong.append(f"{caller.__name__}: {type(error).__name__}: {error}"[:300])

    def _structures(self, most: int | None = None) -> Iterator[tuple[int, Backbone]]:
        for number in itertools.count() if most is None else range(most):
            if self._over.is_set():
                return
            yield number, structure(self._stretches[number % len(self._stretches)], number)

    def _check(self, caller: str, number: int, result: object) -> None:
        stretch = self._stretches[number % len(self._stretches)]
        if not isinstance(result, Tokens):
            self.wrong.append(f"{caller}: {type(result).__name__}: {result}"[:300])
        elif result.chains[0].tokens.tolist() != stretch.tokens[result.codebook_version]:
            self.wrong.append(
                f"{caller}: other tokens than in process, of structure {number}, {result.codebook_version}"
            )
        elif result.chains[0].chain != str(number):
            self.wrong.append(f"{caller}: the answer of {result.chains[0].chain} for structure {number}")
        self.answers[caller] += 1

    def _lasting(self) -> None:
        with Client(self._server.address) as client:
            for number, result in client.tokenize_many(self._structures(), codebook_version="ACTIVE", in_flight=8):
                self._check("lasting stream", number, result)

    def _anew(self) -> None:
        with Client(self._server.address) as client:
            for number, result in client.tokenize_many(self._structures(40), in_flight=16, ordered=False):
                self._check("new streams", number, result)

    def _leaving(self) -> None:
        with Client(self._server.address) as client:
            results = client.tokenize_many(self._structures(), in_flight=16)
            for number, result in itertools.islice(results, 5):
                self._check("left streams", number, result)
            results.close()
        self._over.wait(0.2)

    def _unary(self) -> None:
        with Client(self._server.address) as client:
            for number, one in self._structures(20):
                self._check("unary", number, client.tokenize(one))
                self._over.wait(0.05)

    def _of_files(self) -> None:
        with Client(self._server.address) as client:
            for path, expected in self._files.items():
                found = client.tokenize(path)
                if [chain.tokens.tolist() for chain in found.chains] != expected[found.codebook_version]:
                    self.wrong.append(f"files: other tokens of {path.name} than in process")
                self.answers["files"] += 1
                self._over.wait(0.3)

    def _bad(self) -> None:
        with Client(self._server.address) as client:
            for number in itertools.islice(itertools.count(self.answers["bad files"]), 20):
                try:
                    client.tokenize(file(number))
                except InvalidStructure:
                    pass
                except FoldmintError as error:
                    self.wrong.append(f"bad file {number}: {error}"[:300])
                self.answers["bad files"] += 1
                self._over.wait(0.1)

    def _decoding(self) -> None:
        with grpc.insecure_channel(self._server.address) as channel:
            call: grpc.UnaryUnaryMultiCallable[pb.DetokenizeRequest, pb.DetokenizeResponse] = channel.unary_unary(
                "/foldmint.v1.TokenizerService/Detokenize",
                request_serializer=pb.DetokenizeRequest.SerializeToString,
                response_deserializer=pb.DetokenizeResponse.FromString,
            )
            answer = call(pb.DetokenizeRequest(tokens=range(_DECODED)), timeout=120)
        x = np.frombuffer(answer.chains[0].coordinates, "<f4")
        if len(x) != _DECODED * 9 or not np.isfinite(x).all():
            self.wrong.append("decoding: coordinates that are not finite, or not as many as asked for")
        self.answers["decoded"] += 1
        self._over.wait(0.5)

    def _scraping(self) -> None:
        for path in ("metrics", "", "api/usage", "api/codebooks"):
            request = urllib.request.Request(
                f"http://{self._server.metrics}/{path}", headers={"Accept-Encoding": "gzip"}
            )
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
                content = answer.read()
            if answer.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            if not content:
                self.wrong.append(f"scraping: /{path} is empty")
            self.answers["scrapes"] += 1
            self._over.wait(0.5)
