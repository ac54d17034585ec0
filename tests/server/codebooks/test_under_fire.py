"""Twenty swaps and two rollbacks while eight clients stream without pause: nothing fails, and nothing is mixed."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.store.model_store import Store
from helpers.chains import RealChain
from helpers.support import RunningServer, admin_of, metrics_of, request_of, running_server, stub_of

CLIENTS, SWAPS, ROLLBACKS = 8, 20, 2
# Structures of one client that are on their way at a time, and of one stream of those that begin new ones.
IN_FLIGHT, A_STREAM = 2, 10
# Answers between two swaps, over all clients.
ANSWERS = 8


@dataclass
class History:
    """The versions that were active, one after another; begun: how many exchanges were begun, done: how many ended."""

    versions: list[str]
    begun: int = 0
    done: int = 0


@dataclass
class Client:
    """What a client asked and was answered. answers: (version asked for, version stated, structure, tokens)."""

    number: int
    answers: list[tuple[str, str, int, list[list[int]]]] = field(default_factory=list)
    streams: list[set[str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fire:
    """Clients that stream to a server until told to stop."""

    server: RunningServer
    structures: list[pb.TokenizeRequest]
    history: History
    stop: threading.Event = field(default_factory=threading.Event)

    def stream(self, client: Client) -> None:
        """Even clients keep one stream for all the time; odd ones begin a new one after some structures."""
        try:
            with stub_of(self.server) as stub:
                while not self.stop.is_set():
                    self._one_stream(client, stub.TokenizeStream, None if client.number % 2 == 0 else A_STREAM)
        except Exception as error:  # noqa: BLE001 (a thread's errors are the test's)
            client.wrong.append(repr(error))

    def _one_stream(
        self, client: Client, call: Callable[..., Iterator[pb.TokenizeStreamResponse]], most: int | None
    ) -> None:
        room = threading.Semaphore(IN_FLIGHT)
        sent: dict[int, tuple[str, int, int]] = {}
        began = self.history.done

        def items() -> Iterator[pb.TokenizeStreamRequest]:
            for number in itertools.count() if most is None else range(most):
                room.acquire()
                if self.stop.is_set():
                    return
                place = (number + client.number) % len(self.structures)
                asked = ("", "ACTIVE", "")[number % 3]
                sent[number] = (asked, place, self.history.done)
                request = pb.TokenizeRequest(codebook_version=asked)
                request.MergeFrom(self.structures[place])
                yield pb.TokenizeStreamRequest(id=number, request=request)

        own: set[str] = set()
        for answer in call(items()):
            room.release()
            asked, place, done = sent.pop(answer.id)
            if answer.HasField("failure"):
                client.wrong.append(f"{answer.failure.code}: {answer.failure.message}")
                continue
            version = answer.response.codebook_version
            # Active at some moment between sending and answer.
            since = done if asked == "ACTIVE" else began
            if version not in self.history.versions[since : self.history.begun + 1]:
                client.wrong.append(f"{version} was not active when {asked or 'its stream'} was asked for")
            if asked == "":
                own.add(version)
            client.answers.append((asked, version, place, [list(chain.tokens) for chain in answer.response.chains]))
        client.streams.append(own)
        if sent:
            client.wrong.append(f"{len(sent)} structures were not answered")


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_mixed(
    versions: Path, own_versions: Path, short: list[RealChain], data: Path
) -> None:
    structures = [request_of(chain) for chain in short]
    structures.append(pb.TokenizeRequest(file=pb.StructureFile(content=(data / "2beg.cif.gz").read_bytes())))
    with running_server("--model", str(own_versions), "--poll-seconds", "0.5") as server, admin_of(server) as admin:
        history = History(["000001"])
        fire = Fire(server, structures, history)
        clients = [Client(number) for number in range(CLIENTS)]
        threads = [threading.Thread(target=fire.stream, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()

        def burn() -> None:
            """Wait for some answers, of which one at least is under the version that is active now."""
            before, limit = [len(client.answers) for client in clients], time.monotonic() + 60
            while time.monotonic() < limit:
                new = [
                    answer[1]
                    for client, known in zip(clients, before, strict=True)
                    for answer in client.answers[known:]
                ]
                if len(new) >= ANSWERS and history.versions[-1] in new:
                    return
                time.sleep(0.01)

        # All eight in turn, of which five are kept: some are in memory, and some are loaded anew.
        wanted = itertools.cycle([2, 3, 1, 4, 5, 6, 5, 7, 8, 2])
        for step in range(SWAPS + ROLLBACKS):
            burn()
            if step in (10, 21):
                history.versions.append(history.versions[-2])
                history.begun += 1
                request = cb.RollbackCodebookRequest(from_version=history.versions[-2])
                assert admin.RollbackCodebook(request).codebook.version == history.versions[-1]
            else:
                history.versions.append(f"{next(wanted):06d}")
                history.begun += 1
                reply = admin.ActivateCodebook(cb.ActivateCodebookRequest(version=history.versions[-1]))
                assert reply.previous_version == history.versions[-2]
            history.done += 1
        burn()
        fire.stop.set()
        for thread in threads:
            thread.join(60)
        found = metrics_of(server)
        usage = [list(admin.GetUsage(cb.GetUsageRequest(version=version)).hits) for version in set(history.versions)]

    assert [client.wrong for client in clients] == [[]] * CLIENTS
    assert found['foldmint_codebook_swaps_total{outcome="activated"}'] == SWAPS
    assert found['foldmint_codebook_swaps_total{outcome="rolled_back"}'] == ROLLBACKS
    asked = {name: value for name, value in found.items() if "foldmint_requests_total" in name and "Stream" in name}
    statuses = {name: value for name, value in asked.items() if value}  # others stand at 0 from the start
    answers = [answer for client in clients for answer in client.answers]
    assert statuses == {'foldmint_requests_total{method="TokenizeStream",status="OK"}': len(answers)}
    # A stream has one version for what asks for none.
    assert all(len(own) == 1 for client in clients for own in client.streams if own)
    assert sum(len(client.streams) for client in clients) > CLIENTS
    # Each version that was active answered.
    stated = Counter(version for _, version, _, _ in answers)
    assert set(stated) == set(history.versions)
    _as_in_process(answers, versions, short, data)
    # And none of it was lost to the counts of usage.
    residues = sum(len(tokens) for _, _, _, chains in answers for tokens in chains)
    assert sum(map(sum, usage)) == residues
    print(f"{len(answers)} answers of {residues} residues: {dict(sorted(stated.items()))}")  # noqa: T201


def _as_in_process(
    answers: list[tuple[str, str, int, list[list[int]]]], versions: Path, short: list[RealChain], data: Path
) -> None:
    """Each answer's tokens are those that its stated version gives in process."""
    for version in sorted({version for _, version, _, _ in answers}):
        tokenizer = StructureTokenizer(Store(versions).load(version))
        own = [tokenizer.tokenize(backbone(chain.coordinates, chain.residue_index)) for chain in short]
        own.append(tokenizer.tokenize(data / "2beg.cif.gz"))
        expected = [[chain.tokens.tolist() for chain in chains] for chains in own]
        for _, stated, place, tokens in answers:
            assert stated != version or tokens == expected[place], f"structure {place} under {version}"
