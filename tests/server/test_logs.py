"""The log: no colors where no terminal shows them, all of it in one form, and lines that callers cause throttled."""

import json
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import trustme

from foldmint_server.log_throttle import LogThrottle
from helpers.support import ROOT, running_server

ANSI = re.compile(r"\x1b\[")
# Configures the log as the server does, and logs a line by itself and one as a library does.
SCRIPT = """
import logging, structlog
from foldmint_server.log_config import configure_logs
configure_logs("info", {style!r})
structlog.get_logger("x").info("began", port=1)
logging.getLogger("a.library").warning("went %s", "wrong")
"""


def logged(style: str, *, terminal: bool, **environment: str) -> str:
    """What that script writes to standard error, which is a terminal or a pipe."""
    given = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    given |= {"PYTHONPATH": str(ROOT / "server"), "TERM": "xterm", **environment}
    command = [sys.executable, "-c", SCRIPT.format(style=style)]
    if not terminal:
        return subprocess.run(command, env=given, capture_output=True, text=True, check=True).stderr
    ours, theirs = pty.openpty()
    try:
        subprocess.run(command, env=given, stderr=theirs, check=True)
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_colors_are_for_terminals() -> None:
    assert ANSI.search(logged("console", terminal=True))
    assert "began" in logged("console", terminal=False)
    assert not ANSI.search(logged("console", terminal=False))
    assert not ANSI.search(logged("console", terminal=True, NO_COLOR="1"))


def test_what_libraries_log_is_json_too() -> None:
    own, library = (json.loads(line) for line in logged("json", terminal=False).splitlines())
    assert (own["event"], own["port"]) == ("began", 1)
    assert (library["logger"], library["message"], library["level"]) == ("a.library", "went wrong", "warning")


def test_grpcs_core_writes_nothing_of_its_own(tmp_path: Path) -> None:
    """A handshake that fails, of which it would tell in lines that are no JSON."""
    issued, log = trustme.CA().issue_cert("localhost"), tmp_path / "log"
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    arguments = ("--tls-server-certificate", str(certificate), "--tls-server-key", str(key))
    with running_server(*arguments, log=log, fresh=True) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"this is no TLS\r\n" * 10)
            assert connection.recv(1) in (b"", b"\x15")  # hung up, maybe with an alert
    for line in log.read_text().splitlines():
        json.loads(line)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def kept(by: LogThrottle, /, **line: object) -> dict[str, object] | None:
    try:
        return dict(by(None, "info", dict(line)))
    except structlog.DropEvent:
        return None


def test_of_a_kind_of_line_the_first_comes_at_once_and_then_their_number() -> None:
    clock = Clock()
    throttle = LogThrottle(10, clock)
    assert kept(throttle, event="refused", throttle="full", peer="a") == {"event": "refused", "peer": "a"}
    assert [kept(throttle, event="refused", throttle="full", peer="b") for _ in range(3)] == [None] * 3
    assert kept(throttle, event="refused", throttle="rate") == {"event": "refused"}  # another kind
    assert kept(throttle, event="began") == {"event": "began"}  # none of a kind
    clock.now += 10
    line = kept(throttle, event="refused", throttle="full", peer="c")
    assert line == {"event": "refused", "peer": "c", "times": 4}


def test_the_number_is_told_when_no_further_line_comes(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    throttle = LogThrottle(10, clock)
    old = structlog.get_config()
    structlog.configure(
        processors=[throttle, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.PrintLoggerFactory(),
    )
    try:
        for peer in "abc":
            structlog.get_logger().info("refused", throttle="full", peer=peer)
        throttle.flush()
        clock.now += 10
        for _ in range(3):
            throttle.flush()
            clock.now += 10
    finally:
        structlog.configure(**old)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"peer": "a", "event": "refused"}, {"peer": "c", "times": 2, "event": "refused"}]
