"""Real servers whose devices fail or wait on command; see `helpers.servers.faulty_server`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.support import RunningServer, running_server


@contextmanager
def faulty_server(faults: Path, *arguments: str, log: Path | None = None, code: int = 0) -> Iterator[RunningServer]:
    """A server that fails as a file says; the rest is as in `running_server`."""
    environment = {"FOLDMINT_TEST_FAULTS": str(faults)}
    with running_server(
        *arguments, environment=environment, log=log, module="helpers.servers.faulty_server", code=code
    ) as server:
        yield server


@contextmanager
def held_up(faults: Path) -> Iterator[None]:
    """Until its end, the server of this file computes nothing: what is admitted stays under way."""
    faults.write_text("hold 1\n")
    try:
        yield
    finally:
        faults.unlink()
