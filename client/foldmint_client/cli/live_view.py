"""A live view of a server's codes on a terminal, or a line a tick elsewhere."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_BARS = "▁▂▃▄▅▆▇█"


def line(row: dict[str, Any], *, as_json: bool) -> str:
    """A tick on one line. row: of a tick, as `foldmint watch --json` prints it."""
    if as_json:
        return json.dumps(row, allow_nan=False)
    if row["error"] is not None:
        return f"{row['time']}  {row['error']}"
    return f"{row['time']}  " + ", ".join(f"{name} {value}" for name, value in _figures(row))


def panel(row: dict[str, Any], rates: Sequence[float], server: str) -> "RenderableType":
    """A tick as a table. rates: residues a second of the last ticks."""
    from rich.panel import Panel
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    if row["error"] is not None:
        table.add_row("[red]no connection[/red]", str(row["error"]).replace("[", r"\["))
    else:
        for name, value in _figures(row):
            table.add_row(name, value)
        table.add_row("last minutes", _sparkline(rates[-40:]))
    return Panel(table, title=f"foldmint {server}", subtitle="Ctrl-C ends", expand=False)


def _figures(row: dict[str, Any]) -> list[tuple[str, str]]:
    rate, perplexity, dead = row["residues_per_second"], row["perplexity"], row["dead"]
    return [
        ("version", row["codebook_version"]),
        ("residues/s", "-" if rate is None else f"{rate:,.0f}"),
        ("residues", f"{row['residues']:,}"),
        ("utilization", f"{row['utilization']:.1%}"),
        ("perplexity", "-" if perplexity is None else f"{perplexity:,.0f}"),
        ("dead codes", "-" if dead is None else str(dead)),
    ]


def _sparkline(rates: Sequence[float]) -> str:
    most = max(rates, default=0)
    return "".join(_BARS[int((len(_BARS) - 1) * rate / most) if most else 0] for rate in rates)
