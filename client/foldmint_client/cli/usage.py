"""The commands `foldmint usage` and `foldmint watch`: how a server's codes are used.

foldmint usage --admin HOST:PORT
foldmint watch --admin HOST:PORT
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foldmint_client.cli.common import (
    LOCAL_ADMIN,
    OUTPUT,
    Admin,
    AsJson,
    Attempts,
    Timeout,
    connected_admin,
    output_errors,
    unavailable,
)
from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials

if TYPE_CHECKING:
    from foldmint_client.admin import CodebookAdmin
    from foldmint_client.analysis.usage import Throughput


@with_credentials
def usage(
    codebook_version: Annotated[
        str | None,
        typer.Option(metavar="V", help="The codebook version; the active one by default.", rich_help_panel=OUTPUT),
    ] = None,
    top: Annotated[
        int, typer.Option(min=0, help="How many of the most frequent codes to list.", rich_help_panel=OUTPUT)
    ] = 10,
    as_json: AsJson = False,
    admin: Admin = LOCAL_ADMIN,
    timeout: Timeout = 10.0,
    attempts: Attempts = 5,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Print how the codes are used, as counted by one server since it first activated the version.

    Utilization is the share of codes with a hit. Perplexity is the number of equally frequent codes that would be as
    hard to predict. Codes without a hit are called dead after ten residues per code, and not before. With --json,
    `hits` holds the hits of each code.

    `foldmint-maintenance usage` does more: several servers, Prometheus, and drift.
    """
    from foldmint_client.analysis.usage import as_row, figures

    with (
        output_errors(None),
        connected_admin(admin, timeout, attempts, credentials) as client,
    ):
        counted = client.usage(codebook_version)
        found = figures(counted.hits, top)
        row = as_row(counted.version, counted.since, found)
        if as_json:
            import json

            first = [{"code": code, "hits": hits} for code, hits in found.top]
            typer.echo(json.dumps({**row, "top": first, "hits": counted.hits.tolist()}, allow_nan=False))
        else:
            _print_usage(row, found.top)


def _print_usage(row: dict[str, Any], top: tuple[tuple[int, int], ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    perplexity, dead = row["perplexity"], row["dead"]
    for name, value in (
        ("codebook version", row["codebook_version"]),
        ("since", row["since"] or "unknown"),
        ("residues", f"{row['residues']:,}"),
        ("utilization", f"{row['utilization']:.1%} ({row['used']} of {row['codes']} codes)"),
        ("perplexity", "none yet" if perplexity is None else f"{perplexity:,.1f}"),
        ("dead codes", "unknown before ten residues per code" if dead is None else str(dead)),
        *((f"code {code}", f"{hits:,} ({hits / row['residues']:.2%})") for code, hits in top),
    ):
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


@with_credentials
def watch(
    interval: Annotated[
        float, typer.Option(min=0.01, metavar="SECONDS", help="Time between updates.", rich_help_panel=OUTPUT)
    ] = 1.0,
    count: Annotated[
        int, typer.Option(min=0, metavar="N", help="Exit after N updates; 0: run until Ctrl-C.", rich_help_panel=OUTPUT)
    ] = 0,
    as_json: AsJson = False,
    admin: Admin = LOCAL_ADMIN,
    timeout: Timeout = 5.0,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Watch how a server's codes are used: version, residues per second, utilization, perplexity, dead codes.

    On a terminal, the view is redrawn every second; elsewhere, or with --json, there is a line every second. If the
    server goes away, the command waits for it. Exit with Ctrl-C.
    """
    from foldmint_client.analysis.usage import Throughput

    live = sys.stdout.isatty() and not as_json
    throughput = Throughput()
    with (
        output_errors(None),
        connected_admin(admin, timeout, 1, credentials) as client,
    ):
        try:
            first = _sample(client, throughput, wait=False)
            if live:
                _show(first, client, throughput, admin, interval, count)
            else:
                from foldmint_client.cli.live_view import line

                _ticks(first, client, throughput, interval, count, lambda row: typer.echo(line(row, as_json=as_json)))
        except KeyboardInterrupt:
            return


def _show(
    first: dict[str, Any], client: "CodebookAdmin", throughput: "Throughput", admin: str, interval: float, count: int
) -> None:
    from rich.live import Live

    from foldmint_client.cli.live_view import panel

    with Live(panel(first, [], admin), auto_refresh=False) as view:
        _ticks(
            first,
            client,
            throughput,
            interval,
            count,
            lambda row: view.update(panel(row, [*throughput.rates], admin), refresh=True),
        )


def _ticks(
    first: dict[str, Any],
    client: "CodebookAdmin",
    throughput: "Throughput",
    interval: float,
    count: int,
    show: Callable[[dict[str, Any]], None],
) -> None:
    """Show the first row and those after it, at a steady pace."""
    row, due, seen = first, time.monotonic(), 0
    while True:
        show(row)
        seen += 1
        if seen == count:
            return
        due = max(due + interval, time.monotonic())  # missed updates are not made up for
        time.sleep(max(0.0, due - time.monotonic()))
        row = _sample(client, throughput, wait=True)


def _sample(client: "CodebookAdmin", throughput: "Throughput", *, wait: bool) -> dict[str, Any]:
    """The row of one update. wait: report a server that is away in the row, instead of raising its error."""
    from datetime import UTC, datetime

    from foldmint_client.analysis.usage import as_row, figures
    from foldmint_client.errors import DeadlineExceeded, Unavailable

    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        counted = client.usage()
    except (Unavailable, DeadlineExceeded) as error:
        if not wait:
            raise
        throughput.lost()
        return {"time": now, "error": f"cannot connect: {' '.join(unavailable(error).split())}"}
    found = figures(counted.hits)
    rate = throughput.add(counted, found.residues, time.monotonic())
    row = as_row(counted.version, counted.since, found)
    return {"time": now, "error": None, **row, "residues_per_second": rate}
