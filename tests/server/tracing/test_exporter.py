"""Traces are off by default, and what they need is checked when the server starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foldmint_server.tracing.setup import TracingError, start_exporter
from helpers.support import ROOT


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_nothing_is_sent_where_it_is_turned_off(off: dict[str, str]) -> None:
    assert start_exporter("http://127.0.0.1:4317", off) is None
    assert start_exporter("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", **off}) is None


@pytest.mark.parametrize(
    "what", ["foldmint_client", "foldmint_client.cli.main", "foldmint_client.transport.trace_context"]
)
def test_the_client_loads_nothing_of_it(what: str) -> None:
    code = (
        f"import sys, {what}\n"
        "from foldmint_client.transport.trace_context import with_context\n"
        "assert with_context((('a', 'b'),)) == (('a', 'b'),)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_off_is_the_default_and_loads_no_sdk() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    assert start_exporter("", environment) is None
    code = (
        "import os, sys, foldmint_server.server, foldmint_server.tracing.setup as tracing\n"
        "assert tracing.start_exporter('', os.environ) is None\n"
        "loaded = [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "print([name for name in loaded if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "'http/protobuf'"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "'zipkin'"),
    ],
)
def test_what_cannot_be_had_is_refused(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(TracingError, match=reason):
        start_exporter("http://127.0.0.1:4317", environment)


def test_settings_that_opentelemetry_does_not_take_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with pytest.raises(TracingError, match="soon"):
        start_exporter("http://127.0.0.1:4317", os.environ)


def test_without_the_extra_the_server_says_so(tmp_path: Path) -> None:
    # Found before the real one: as if only OpenTelemetry's API were installed.
    hidden = tmp_path / "opentelemetry" / "sdk"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('gone', name='opentelemetry.sdk')\n")
    roots = [str(tmp_path), *(str(ROOT / name) for name in ("protos", "tokenizer", "server"))]
    command = [sys.executable, "-m", "foldmint_server.cli", "--otlp-endpoint", "http://127.0.0.1:4317"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    done = subprocess.run(command, text=True, capture_output=True, check=False, env=environment, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip() == "foldmint-server: traces need OpenTelemetry: pip install 'foldmint[otel]'"


def test_an_endpoint_that_is_none_is_refused() -> None:
    command = [sys.executable, "-m", "foldmint_server.cli", "--otlp-endpoint", "localhost:4317"]
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--otlp-endpoint: 'localhost:4317' does not match" in done.stderr
