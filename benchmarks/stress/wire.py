"""Sends bad messages to a real server as raw bytes, so that even the encoding may be wrong."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from benchmarks.stress.jobs import stretches
from benchmarks.stress.messages import message
from benchmarks.stress.reader import Findings, clean
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_tokenizer import StructureTokenizer, backbone

_SERVICE = "/foldmint.v1.TokenizerService/"
_ANSWERS: dict[str, type[Message]] = {"Tokenize": pb.TokenizeResponse, "Detokenize": pb.DetokenizeResponse}
# Of one answer; so long that only a hang takes longer, on a busy machine too.
_SECONDS = 120.0
_AT_ONCE, _EVERY = 16, 500
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# Of bytes that are not a message of the method's type.
_UNDECODABLE = "message: its bytes are not a message"
GROWTH_BYTES = 2**30
# Of a server that is to be asked: so that its limits are met.
ARGUMENTS = ("--max-chains", "100", "--max-residues", "5000", "--max-unpacked-bytes", str(16 * 2**20))


class Target:
    """A server, and what is asked of it. pid: of its process, whose memory must not grow by more than 1 GiB."""

    def __init__(self, address: str, pid: int) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
        self._pid = pid
        (self._known,) = stretches([24], 1)
        # Numbered 1, 2, 3, ..., as it is sent.
        self._expected = StructureTokenizer.load().tokenize(backbone(self._known.coordinates))[0].tokens.tolist()
        self._call("Tokenize", self._good())
        self._first = memory(pid)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def hunt(
        self, first: int, count: int, seed: int = 0, on_progress: Callable[[Findings], object] | None = None
    ) -> Findings:
        """Send the messages `first` to `first + count - 1`. on_progress: called with the results so far."""
        found = Findings()
        with ThreadPoolExecutor(_AT_ONCE, "message") as pool:
            for start in range(first, first + count, _EVERY):
                numbers = range(start, min(start + _EVERY, first + count))
                for number, (outcome, wrong) in zip(numbers, pool.map(partial(self._one, seed), numbers), strict=True):
                    if wrong:
                        found.wrong.append((f"message {number}", wrong))
                    else:
                        found.outcomes[outcome] += 1
                self._check_well()
                if on_progress is not None:
                    on_progress(found)
        return found

    def _one(self, seed: int, number: int) -> tuple[str, str]:
        """A message's result, and what is wrong with it."""
        method, content = message(number, seed)
        try:
            if method == "TokenizeStream":
                return self._stream(content), ""
            return self._call(method, content), ""
        except Exception as error:  # noqa: BLE001 (any other error is a finding)
            return "", f"{method}: {type(error).__name__}: {error}"[:300]

    def _check_well(self) -> None:
        """Raise AssertionError if the server no longer answers as before, or its memory has grown."""
        answer = self._unary("Tokenize")(self._good(), timeout=_SECONDS)
        tokens = list(pb.TokenizeResponse.FromString(answer).chains[0].tokens)
        assert tokens == self._expected, "a good structure's other tokens"
        growth = memory(self._pid) - self._first
        assert growth < GROWTH_BYTES, f"the server's memory grew by {growth} bytes"

    def _call(self, method: str, content: bytes) -> str:
        """`answered`, `refused` or `undecodable`."""
        try:
            answer = self._unary(method)(content, timeout=_SECONDS)
        except grpc.RpcError as error:
            return refused(error)
        _ANSWERS[method].FromString(answer)
        return "answered"

    def _unary(self, method: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        return self._channel.unary_unary(_SERVICE + method)

    def _good(self) -> bytes:
        return pb.TokenizeRequest(
            backbones=pb.Backbones(chains=[pb.Backbone(coordinates=self._known.coordinates.astype("<f4").tobytes())])
        ).SerializeToString()

    def _stream(self, content: bytes) -> str:
        """The message between two good ones: both are answered, unless it ends the stream."""
        good = pb.TokenizeRequest.FromString(self._good())
        ids = (2**63 + 1, 2**63 + 2)
        ends = [pb.TokenizeStreamRequest(id=number, request=good).SerializeToString() for number in ids]
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(_SERVICE + "TokenizeStream")
        try:
            received = list(call(iter((ends[0], content, ends[1])), timeout=_SECONDS))
        except grpc.RpcError as error:
            return refused(error)
        answers = [pb.TokenizeStreamResponse.FromString(answer) for answer in received]
        own = {answer.id: answer for answer in answers}
        assert len(answers) == 3, f"{len(answers)} answers to 3 structures"
        for number in ids:
            assert list(own[number].response.chains[0].tokens) == self._expected, "a good structure's other tokens"
        (third,) = [answer for answer in answers if answer.id not in ids]
        if third.HasField("response"):
            return "answered"
        return _clean_refusal(third.failure.code, third.failure.message, [*third.failure.violations])


def memory(pid: int) -> int:
    """A process' peak memory in bytes. Raises FileNotFoundError if it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def refused(error: grpc.RpcError) -> str:
    """`refused` or `undecodable`. Raises AssertionError for any other error."""
    assert isinstance(error, grpc.Call)
    code, details = error.code(), error.details() or ""
    outcome = _clean_refusal(code.value[0], details, list(_violations(error)))
    return "undecodable" if details.startswith(_UNDECODABLE) else outcome


def _clean_refusal(code: int, details: str, violations: "list[pb.FieldViolation]") -> str:
    assert code in {one.value[0] for one in _REFUSALS}, f"{code}: {details}"
    assert clean(details), f"a refusal with what should not be shown: {details!r:.300}"
    if code == grpc.StatusCode.INVALID_ARGUMENT.value[0]:
        assert violations, f"no field is named: {details}"
        for violation in violations:
            assert violation.field
            assert clean(violation.field + violation.description), f"{violation!r:.300}"
    return "refused"


def _violations(error: grpc.Call) -> "Iterator[pb.FieldViolation]":
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            details = status_pb2.Status.FromString(value).details
        except DecodeError as wrong:
            raise AssertionError("details that are not a message") from wrong
        for detail in details:
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                for one in bad.field_violations:
                    yield pb.FieldViolation(field=one.field, description=one.description)
