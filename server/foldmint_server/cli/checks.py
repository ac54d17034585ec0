"""What would keep a server from starting, found without starting it, by the name of the option."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from foldmint_server.security.basic_auth import read_passwords
from foldmint_server.security.bearer_tokens import read_tokens
from foldmint_server.security.tls import TlsFiles, read_authority, read_pair
from foldmint_server.settings import Settings


def early_problems(settings: Settings) -> list[str]:
    """Problems that are found without loading torch: files of tokens, passwords and TLS, the folder."""
    return [
        f"{option}: {problem}" for option, check in _early_checks(settings) if (problem := _problem(check)) is not None
    ]


def all_problems(settings: Settings) -> list[str]:
    """All that keeps a server from starting: as above, ports, traces, devices, and the store, which is read."""
    found = early_problems(settings)
    found += [f"{option}: {problem}" for option, check in _listeners(settings) if (problem := _problem(check))]
    if settings.otlp_endpoint and (problem := _problem(lambda: _check_traces(settings))):
        found.append(f"--otlp-endpoint: {problem}")
    broken = {line.partition(":")[0] for line in found}
    if "--device" not in broken and (problem := _problem(lambda: _check_devices(settings))):
        found.append(f"--device: {problem}")
        broken.add("--device")
    if "--model" not in broken:
        found += _model_problems(settings, with_engines="--device" not in broken)
    return found


def _problem(check: Callable[[], object]) -> str | None:
    # ValueError: of all files that are read; ModelError and errors of the exporter are RuntimeErrors or of their own.
    try:
        check()
    except (ValueError, OSError, RuntimeError) as error:
        return str(error)
    return None


def _early_checks(settings: Settings) -> Iterator[tuple[str, Callable[[], object]]]:
    if settings.model is not None:
        yield "--model", lambda: _check_folder(settings.model or "")
    if settings.tokens_file:
        yield "--tokens-file", lambda: read_tokens(Path(settings.tokens_file))
    if settings.metrics_auth:
        yield "--metrics-auth", lambda: read_passwords(Path(settings.metrics_auth))
    if settings.tls_server_certificate:
        files = TlsFiles(Path(settings.tls_server_certificate), Path(settings.tls_server_key))
        yield "--tls-server-certificate, --tls-server-key", lambda: read_pair(files)
    if settings.tls_client_ca:
        yield "--tls-client-ca", lambda: read_authority(Path(settings.tls_client_ca))
    if settings.admin_tls_client_ca:
        yield "--admin-tls-client-ca", lambda: read_authority(Path(settings.admin_tls_client_ca))
    if settings.metrics_tls_client_ca:
        yield "--metrics-tls-client-ca", lambda: read_authority(Path(settings.metrics_tls_client_ca))


def _check_folder(model: str) -> None:
    """A path, as it has a separator, that is not there; whatever else it may be is found out when it is loaded."""
    if "://" not in model and os.sep in model and not Path(model).is_dir():
        raise ValueError(f"{model} is not a folder")


def _listeners(settings: Settings) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each listener's port is free, and no other's."""
    taken: dict[str, str] = {}
    for name in ("listen", "metrics_listen", "admin_listen"):
        option, address = f"--{name.replace('_', '-')}", str(getattr(settings, name))
        yield option, lambda address=address, option=option: _check_port(address, option, taken)  # type: ignore[misc]


def _check_port(address: str, option: str, taken: dict[str, str]) -> None:
    host, _, port = address.rpartition(":")
    if port != "0":
        if address in taken:
            raise ValueError(f"{address} is also the address of {taken[address]}")
        taken[address] = option
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(*found[0][:3]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
            probe.bind(found[0][4])
    except OSError as error:
        raise OSError(f"cannot listen at {address}: {error.strerror or error}") from None


def _check_traces(settings: Settings) -> None:
    from foldmint_server.tracing.setup import start_exporter

    exporter = start_exporter(settings.otlp_endpoint, os.environ)
    if exporter is not None:
        exporter.close()


def _check_devices(settings: Settings) -> None:
    from foldmint_server.inference.devices import devices_of

    with _as_runtime_error():
        devices_of(settings.device)


def _model_problems(settings: Settings, *, with_engines: bool) -> list[str]:
    from foldmint_server.inference.devices import engines_of
    from foldmint_tokenizer import ModelError
    from foldmint_tokenizer.store.model_store import Store

    try:
        store = Store(settings.model)
        model = store.load()
        canary = store.canary()
        if canary is not None:
            store.codebook(canary.version)
    except (ModelError, OSError) as error:
        return [f"--model: {error}"]
    if not with_engines:
        return []
    problem = _problem(lambda: _check_engines(lambda: engines_of(model, settings)))
    return [] if problem is None else [f"--precision, --compile: {problem}"]


def _check_engines(create: Callable[[], object]) -> None:
    with _as_runtime_error():
        create()


@contextlib.contextmanager
def _as_runtime_error() -> Iterator[None]:
    """ModelError is not known before torch is loaded."""
    from foldmint_tokenizer import ModelError

    try:
        yield
    except ModelError as error:
        raise RuntimeError(str(error)) from error
