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
    admin: Admin = LOCAL_ADMIN,
    codebook_version: Annotated[
        str | None, typer.Option(metavar="V", help="Of the codebook; the active one by default.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="How many of the most frequent codes to name.")] = 10,
    as_json: AsJson = False,
    timeout: Timeout = 10.0,
    attempts: Attempts = 5,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Print how the codes are used, as one server counted since it first activated the version.

    Utilization is the share of codes that were hit; perplexity is the number of codes that, if all were as frequent,
    would be as hard to guess. Codes that were not hit are called dead after ten residues a code; before, nothing is
    said. With --json, `hits` holds the hits of each code.

    `foldmint-maintenance usage` tells more: of several servers, of Prometheus, and of drift.
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
        ("since", row["since"] or "not told"),
        ("residues", f"{row['residues']:,}"),
        ("utilization", f"{row['utilization']:.1%} ({row['used']} of {row['codes']} codes)"),
        ("perplexity", "none yet" if perplexity is None else f"{perplexity:,.1f}"),
        ("dead codes", "not known before ten residues a code" if dead is None else str(dead)),
        *((f"code {code}", f"{hits:,} ({hits / row['residues']:.2%})") for code, hits in top),
    ):
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


@with_credentials
def watch(
    admin: Admin = LOCAL_ADMIN,
    interval: Annotated[float, typer.Option(min=0.01, metavar="SECONDS", help="Between two looks.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, metavar="N", help="End after so many looks; 0: with Ctrl-C.")] = 0,
    as_json: AsJson = False,
    timeout: Timeout = 5.0,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Watch how a server's codes are used: version, residues a second, utilization, perplexity, dead codes.

    On a terminal, a view that is drawn anew each second; elsewhere, or with --json, a line each second. A server that
    goes away while it is watched is waited for. Ends with Ctrl-C.
    """
    from foldmint_client.analysis.usage import Throughput

    live = sys.stdout.isatty() and not as_json
    throughput = Throughput()
    with (
        output_errors(None),
        connected_admin(admin, timeout, 1, credentials) as client,
    ):
        try:
            first = _look(client, throughput, patient=False)
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
    """Show the first look and those after it, at a steady pace."""
    row, due, seen = first, time.monotonic(), 0
    while True:
        show(row)
        seen += 1
        if seen == count:
            return
        due = max(due + interval, time.monotonic())  # what was missed is not made up for
        time.sleep(max(0.0, due - time.monotonic()))
        row = _look(client, throughput, patient=True)


def _look(client: "CodebookAdmin", throughput: "Throughput", *, patient: bool) -> dict[str, Any]:
    """What one tick tells. patient: an absent server is no error, but something to tell."""
    from datetime import UTC, datetime

    from foldmint_client.analysis.usage import as_row, figures
    from foldmint_client.errors import DeadlineExceeded, Unavailable

    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        counted = client.usage()
    except (Unavailable, DeadlineExceeded) as error:
        if not patient:
            raise
        throughput.lost()
        return {"time": now, "error": f"no server answers: {' '.join(unavailable(error).split())}"}
    found = figures(counted.hits)
    rate = throughput.add(counted, found.residues, time.monotonic())
    row = as_row(counted.version, counted.since, found)
    return {"time": now, "error": None, **row, "residues_per_second": rate}
