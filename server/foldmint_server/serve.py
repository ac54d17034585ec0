"""Runs a server until a signal stops it."""

import asyncio
import os
import signal
import sys

import structlog

from foldmint.environment import unknown_variables_warning
from foldmint_server.log_config import configure_logs
from foldmint_server.server import Server
from foldmint_server.settings import Settings
from foldmint_tokenizer import ModelError

_LOST = 3


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, or until no device is left.

    Returns the exit code: 0 after a graceful stop, 1 if it could not start, 3 if the last device was lost.
    """
    configure_logs(settings.log_level, settings.log_format)
    if (warning := unknown_variables_warning(os.environ)) is not None:
        structlog.get_logger().warning(warning)
    try:
        return asyncio.run(_serve(settings))
    except (ModelError, OSError, RuntimeError) as error:
        sys.stderr.write(f"foldmint-server: {error}\n")
        return 1


async def _serve(settings: Settings) -> int:
    server = Server(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    # Scripts wait for these lines.
    sys.stdout.write(f"listening on {server.address}\nmetrics on {server.metrics_address}\n")
    sys.stdout.write(f"admin on {server.admin_address}\n")
    sys.stdout.flush()
    waits = [asyncio.create_task(event.wait()) for event in (stopping, server.lost)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await server.stop()
    return _LOST if server.lost.is_set() else 0
