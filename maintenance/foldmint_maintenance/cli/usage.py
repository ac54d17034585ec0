"""The command `foldmint-maintenance usage`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials
from foldmint_maintenance.cli.common import (
    AsJson,
    JsonFile,
    PrometheusAuth,
    PrometheusCa,
    Threads,
    check_outputs,
    check_prometheus,
    checked,
    console_beside,
    faults,
    json_target,
    make_parents,
    server_addresses,
    usage_errors,
    use_threads,
    write_json,
)

if TYPE_CHECKING:
    from rich.table import Table

    from foldmint_client.connection import ConnectionOptions
    from foldmint_maintenance.usage.prometheus_api import Prometheus
    from foldmint_maintenance.usage.statistics import CodeCounts, Drift, UsageFigures

DRIFTED = 3  # the drift exceeds its limit


class _Source(NamedTuple):
    """counts: of what was asked for. against: of the reference, None if there is none; asked for after the counts."""

    counts: "Callable[[], CodeCounts]"
    against: "Callable[[], CodeCounts] | None"


@with_credentials
def usage(
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="A store: moving averages of its codebook. A folder, or a URL.")
    ] = None,
    prometheus: Annotated[str | None, typer.Option(metavar="URL", help="Hits that a Prometheus has read.")] = None,
    servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,…", help="Hits that servers report, on their admin listeners.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A set that is encoded: Parquet, packed corpus, or structure files.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="What --data is encoded by; the embedded model by default. With --prometheus or --servers: the store "
            "whose N shows which codes without a hit may be called dead.",
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="V", help="Of the codebook; the active one by default.")
    ] = None,
    window: Annotated[str, typer.Option(help="How far back Prometheus is asked: 12h, 7d, …")] = "7d",
    selector: Annotated[str, typer.Option(help='Labels of the servers in Prometheus, such as job="foldmint".')] = "",
    dead_threshold: Annotated[
        float, typer.Option(min=0, help="A code is dead if its N, hits a step, is below.")
    ] = 1e-5,
    step_residues: Annotated[int, typer.Option(min=1, help="Residues of the step that hits are scaled to.")] = 262_144,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Compare with counts that --json-file and --counts wrote, or with a bulk job's."
        ),
    ] = None,
    against_version: Annotated[
        str | None, typer.Option(metavar="V", help="Compare with another version, from the same source.")
    ] = None,
    against_window: Annotated[
        str | None, typer.Option(metavar="W", help="Compare with so long before the window, from Prometheus.")
    ] = None,
    max_psi: Annotated[
        float | None, typer.Option(min=0, help="Exit with 3 if the population stability index of the two is above.")
    ] = None,
    as_json: AsJson = False,
    json_file: JsonFile = None,
    counts: Annotated[bool, typer.Option("--counts", help="Write each code's count into the JSON too.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw N by rank, in a .svg or .png file.")] = None,
    prometheus_auth: PrometheusAuth = None,
    prometheus_ca: PrometheusCa = None,
    credentials: Credentials = NO_CREDENTIALS,
    threads: Threads = None,
) -> None:
    """Report how the codes are used, from one of --store, --prometheus, --servers and --data, and compare it."""
    given = {"--store": store, "--prometheus": prometheus, "--servers": servers, "--data": data}
    chosen = _one_of(given, against, against_version, against_window, model)
    if max_psi is not None and not (against or against_version or against_window):
        raise typer.BadParameter("--max-psi needs something to compare with: --against, for example")
    json_file = json_target(as_json, json_file)
    if counts and json_file is None:
        raise typer.BadParameter("--counts needs --json or --json-file")
    check_outputs(json_file=json_file, plot=plot)
    check_prometheus(prometheus)
    with usage_errors():
        checked(credentials.read(), *server_addresses(servers))

    from foldmint_maintenance.errors import UsageUnknown
    from foldmint_maintenance.usage import statistics as module
    from foldmint_maintenance.usage.prometheus_api import Prometheus, read_entry
    from foldmint_maintenance.usage.sources import from_file

    with usage_errors():
        if plot is not None:
            from foldmint_maintenance.usage import plot as usage_plot

            usage_plot.check(plot)
        if max_psi is not None and not max_psi >= 0:
            raise ValueError(f"max_psi must be 0 or more, not {max_psi}")
        # What is wrong with an option is better reported before the work than after it.
        module.figures([1.0], dead_threshold=dead_threshold, step_residues=step_residues)
        if chosen == "--prometheus":
            entry = read_entry(prometheus_auth, prometheus_ca)
            server = Prometheus(str(prometheus), entry=entry)
            source = _judged(_prometheus(server, window, selector, version, against_version, against_window), model)
        elif chosen == "--servers":
            source = _judged(_servers(str(servers), version, against_version, credentials.read()), model)
        elif chosen == "--data":
            use_threads(threads)
            source = _data(Path(str(data)), model, version, against_version)
        else:
            source = _store(str(store), version, against_version)
    with faults():
        make_parents(json_file, plot)
        counted = source.counts()
        reference = (
            from_file(against) if against is not None else source.against() if source.against is not None else None
        )
        figures = module.figures(counted, dead_threshold=dead_threshold, step_residues=step_residues)
        drift = None
        if reference is not None:
            try:
                drift = module.drift(counted, reference)
            except ValueError as error:
                raise UsageUnknown(f"{counted.source} cannot be compared with {reference.source}: {error}") from error
        if json_file is not None:
            _write(json_file, figures, drift, max_psi, counted if counts else None)
        if plot is not None:
            both = [one for one in (counted, reference) if one is not None]
            # Steps of two trainings may differ: beside another curve, each is of the same number of residues.
            tails = [(one.source, module.per_step(one, step_residues, moving_averages=len(both) > 1)) for one in both]
            usage_plot.draw(tails, dead_threshold, plot)
    _print(figures, drift, json_file)
    if drift is not None and max_psi is not None and drift.psi > max_psi:
        typer.echo(f"drift: a population stability index of {drift.psi:.4g} is above {max_psi:g}", err=True)
        raise typer.Exit(DRIFTED)


def _one_of(
    given: dict[str, str | Path | None],
    against: Path | None,
    against_version: str | None,
    against_window: str | None,
    model: str | None,
) -> str:
    """The option that names the source. Raises BadParameter unless there is one, and the others fit it."""
    chosen = [option for option, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise typer.BadParameter(f"one of {', '.join(given)} is wanted, not {' and '.join(chosen) or 'none'}")
    if sum(option is not None for option in (against, against_version, against_window)) > 1:
        raise typer.BadParameter("only one of --against, --against-version and --against-window can be compared with")
    if against_window is not None and chosen != ["--prometheus"]:
        raise typer.BadParameter(f"--against-window is for --prometheus, not for {chosen[0]}")
    if model is not None and chosen == ["--store"]:
        raise typer.BadParameter("--model is for --data, --prometheus and --servers, not for --store")
    return chosen[0]


def _judged(source: _Source, store: str | None) -> _Source:
    """The source, its counts with N of their version in a store; as it is without one."""
    from foldmint_maintenance.usage.sources import with_store

    return source if store is None else _Source(lambda: with_store(source.counts(), store), source.against)


def _store(store: str, version: str | None, against: str | None) -> _Source:
    from foldmint_maintenance.usage.sources import from_store

    other = None if against is None else lambda: from_store(store, against)
    return _Source(lambda: from_store(store, version), other)


def _data(path: Path, model: str | None, version: str | None, against: str | None) -> _Source:
    from rich.console import Console

    from foldmint_maintenance.cli.progress import counting
    from foldmint_maintenance.usage.sources import from_data

    def encoded(of: str | None) -> "CodeCounts":
        with counting(Console(stderr=True), "residues encoded:") as (report,):
            return from_data(path, model, of, skip=skip, report=report)

    def skip(file: Path, why: str) -> None:
        typer.echo(f"passed over {file}: {why}", err=True)

    return _Source(lambda: encoded(version), None if against is None else lambda: encoded(against))


def _servers(servers: str, version: str | None, against: str | None, options: "ConnectionOptions") -> _Source:
    from foldmint_maintenance.usage.sources import from_servers

    addresses = [address.strip() for address in servers.split(",") if address.strip()]
    if not addresses or len(set(addresses)) < len(addresses):
        raise ValueError("--servers takes addresses, none of them twice")
    other = None if against is None else lambda: from_servers(addresses, against, **options)
    return _Source(lambda: from_servers(addresses, version, **options), other)


def _prometheus(
    server: "Prometheus",
    window: str,
    selector: str,
    version: str | None,
    against: str | None,
    against_window: str | None,
) -> _Source:
    from foldmint.durations import parse_duration
    from foldmint_maintenance.usage.prometheus_counts import WindowCounts, counted

    length = parse_duration(window)
    before = None if against_window is None else parse_duration(against_window)
    found: list[WindowCounts] = []

    def counts() -> "CodeCounts":
        found.append(counted(server, length, selector, version=version))
        return found[0].counts

    def earlier() -> "CodeCounts":
        if before is None:
            return counted(server, length, selector, version=against).counts
        # Up to the first reading that was counted, which may be later than the window's beginning.
        return counted(server, before, selector, end=found[0].first - 0.001).counts

    return _Source(counts, earlier if against is not None or before is not None else None)


def _write(
    file: Path, figures: "UsageFigures", drift: "Drift | None", max_psi: float | None, counted: "CodeCounts | None"
) -> None:
    fields: dict[str, Any] = figures.as_json()
    if drift is not None:
        fields["against"] = drift.as_json()
        if max_psi is not None:
            fields["against"] |= {"max_psi": max_psi, "drifted": drift.psi > max_psi}
    if counted is not None:
        fields["counts"] = [int(count) if count.is_integer() else count for count in counted.counts.tolist()]
    write_json(file, fields, indent=None if counted is not None else 2)


def _print(figures: "UsageFigures", drift: "Drift | None", json_file: Path | None) -> None:
    console = console_beside(json_file)
    console.print(_table(_lines(figures)))
    for note in figures.notes:
        console.print(f"- {note}")
    if drift is not None:
        console.print(_table(_drift_lines(drift)))
        for note in drift.notes:
            console.print(f"- {note}")


def _table(lines: list[tuple[str, str]]) -> "Table":
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def _lines(figures: "UsageFigures") -> list[tuple[str, str]]:
    lines = [("source", figures.source), ("version", figures.version or "not known"), ("codes", str(figures.codes))]
    if figures.residues is not None:
        lines += [("residues", f"{figures.residues:,}"), ("residues a code", _shown(figures.residues_a_code))]
    lines += [(f"N {name}", _shown(getattr(figures, name))) for name in ("mean", "std", "min")]
    lines += [("N quartiles", ", ".join(_shown(value) for value in figures.quartiles)), ("N max", _shown(figures.max))]
    lines += [("never hit", str(figures.never_hit)), (f"dead: N < {figures.dead_threshold:g}", _shown(figures.dead))]
    for below in figures.below:
        share = "" if below.share_of_mean is None else f" ({below.share_of_mean:.3g} of the mean)"
        lines.append((f"N < {below.threshold:g}", f"{_shown(below.codes)}{share}"))
    return [*lines, *((name, _shown(getattr(figures, name))) for name in ("perplexity", "utilization", "gini"))]


def _drift_lines(drift: "Drift") -> list[tuple[str, str]]:
    lines = [
        ("against", drift.source),
        ("version", drift.version or "not known"),
        ("population stability index", _shown(drift.psi)),
    ]
    if drift.psi_by_chance is not None:
        lines.append(("by chance alone", f"{drift.psi_by_chance:.4g}, below {drift.psi_by_chance_95:.4g} at 95 %"))
    return [*lines, ("Jensen-Shannon divergence", f"{drift.jensen_shannon_bits:.4g} bits")]


def _shown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.6g}"
