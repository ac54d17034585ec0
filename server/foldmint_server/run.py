"""Run a server until it is told to stop."""

import asyncio
import signal
import sys

from foldmint_server.app import Server
from foldmint_server.logs import configure_logs
from foldmint_server.settings import Settings
from foldmint_tokenizer import ModelError


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 0 after a graceful stop, 1 if it could not start."""
    configure_logs(settings.log_level, settings.log_format)
    try:
        asyncio.run(_serve(settings))
    except (ModelError, OSError, RuntimeError) as error:
        sys.stderr.write(f"foldmint-server: {error}\n")
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    server = Server(settings)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await server.start()
    # The lines that scripts wait for.
    sys.stdout.write(f"listening on {server.address}\nmetrics on {server.metrics_address}\n")
    sys.stdout.write(f"admin on {server.admin_address}\n")
    sys.stdout.flush()
    await told.wait()
    await server.stop()
