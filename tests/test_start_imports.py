"""What a command imports before it does its work: never more than that takes, so that it starts at once."""

import pytest

from helpers.fresh_imports import imported_by

CLIENT, SERVER = "foldmint_client.__main__", "foldmint_server.cli.__main__"
MAINTENANCE, BULK = "foldmint_maintenance.cli.__main__", "foldmint_bulk.cli.__main__"
# What computes or reads structures, and what speaks to others.
COMPUTES = frozenset({"torch", "numba", "scipy", "gemmi", "numpy", "pyarrow", "safetensors", "matplotlib"})
SPEAKS = frozenset({"grpc", "google", "httpx", "fsspec", "cryptography", "prometheus_client", "structlog", "asyncio"})
# asyncio belongs to what reads the server's settings.
HEAVY = {
    CLIENT: COMPUTES | SPEAKS | {"pydantic", "rich", "foldmint_tokenizer"},
    MAINTENANCE: COMPUTES | SPEAKS | {"rich"},
    BULK: COMPUTES | SPEAKS | {"rich"},
    SERVER: (COMPUTES | SPEAKS | {"rich", "opentelemetry"}) - {"asyncio"},
}


def imported_by_command(module: str, *arguments: str) -> frozenset[str]:
    return imported_by(f"from {module} import main\nmain()", *arguments)


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("module", HEAVY)
def test_help_and_version_import_nothing_heavy(module: str, option: str) -> None:
    assert not imported_by_command(module, option) & HEAVY[module]


def test_the_list_of_commands_imports_none_of_them() -> None:
    own = {name for name in imported_by_command(CLIENT, "--help") if name.startswith("foldmint_client.")}
    assert own == {f"foldmint_client.{name}" for name in ("__main__", "cli", "cli.main", "cli.help_text")}


def test_a_command_imports_none_of_the_others() -> None:
    found = imported_by_command(CLIENT, "info", "--help")
    assert "foldmint_client.cli.server_status" in found
    assert not found & {f"foldmint_client.cli.{name}" for name in ("compare", "detokenize", "tokenize", "usage")}


def test_tokens_are_listed_without_a_model() -> None:
    found = imported_by_command(SERVER, "tokens", "create", "--help")
    assert "foldmint_server.cli.tokens" in found
    assert not found & COMPUTES
