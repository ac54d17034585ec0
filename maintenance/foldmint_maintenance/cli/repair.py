"""The command `foldmint-maintenance repair`."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials
from foldmint_maintenance.cli.common import (
    OUTPUT,
    AsJson,
    Device,
    JsonFile,
    PrometheusAuth,
    PrometheusCa,
    Threads,
    check_device,
    check_outputs,
    check_prometheus,
    checked,
    faults,
    json_target,
    make_parents,
    say,
    server_addresses,
    stoppable,
    to_stdout,
    usage_errors,
    use_threads,
    write_json,
)

if TYPE_CHECKING:
    from foldmint_client.connection import ConnectionOptions
    from foldmint_maintenance.repair.config import RepairJob
    from foldmint_maintenance.repair.preflight import Check, Findings
    from foldmint_maintenance.repair.run_record import RunRecord
    from foldmint_maintenance.usage.prometheus_api import Entry
    from foldmint_maintenance.usage.statistics import CodeCounts
    from foldmint_tokenizer.store.model_store import Store

GATE_FAILED = 3
_SECONDS = 10.0  # that Prometheus may take to answer a preflight
_SERVERS = "HOST:PORT,…"


@with_credentials
def repair(
    store: Annotated[str, typer.Option(help="The store whose active codebook is repaired: a folder, or a URL.")],
    data: Annotated[
        Path | None, typer.Option(help="A set: Parquet, packed corpus, or folder of structure files.")
    ] = None,
    from_servers: Annotated[
        str | None, typer.Option(metavar=_SERVERS, help="Instead of a set: servers whose reservoirs give vectors.")
    ] = None,
    scope: Annotated[
        Literal["repair", "finetune", "full"],
        typer.Option(help="Move dead codes alone; let all codes follow; or train encoder and decoder too (--output)."),
    ] = "repair",
    strategy: Annotated[
        Literal["batch", "kmeans++"], typer.Option(help="Where dead codes go: anywhere, or where codes are far.")
    ] = "kmeans++",
    dead_threshold: Annotated[float, typer.Option(min=0, help="A code below it is dead.")] = 1e-5,
    measure: Annotated[
        Literal["count", "frequency"], typer.Option(help="What is below it: N, hits a step; or the share of all hits.")
    ] = "count",
    min_exposure: Annotated[
        float, typer.Option(min=0, help="Residues seen a code; with fewer, none is called dead.")
    ] = 10.0,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Count hits that Prometheus has seen; else N of the codebook.")
    ] = None,
    window: Annotated[str, typer.Option(help="How far back Prometheus is asked: 12h, 7d, …")] = "7d",
    selector: Annotated[str, typer.Option(help='Labels of the servers in Prometheus: job="foldmint".')] = "",
    servers: Annotated[
        str | None, typer.Option(metavar=_SERVERS, help="Count hits that these servers have seen.")
    ] = None,
    counts_file: Annotated[
        Path | None,
        typer.Option("--counts", metavar="FILE", help="Hits in a file: OUT/usage.json of a bulk job, or of usage."),
    ] = None,
    gate_data: Annotated[Path | None, typer.Option(help="A set for the gates; else part of --data is kept.")] = None,
    activate: Annotated[
        str | None, typer.Option(metavar=_SERVERS, help="Servers to swap and check; else they poll the store.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(*OUTPUT, help="Scope full: folder of the job; OUTPUT/model in the end.")
    ] = None,
    full_steps: Annotated[int, typer.Option(min=1, help="Scope full: steps of each of its two stages.")] = 2000,
    residues: Annotated[int, typer.Option(min=1, help="Of the batch that dead codes are put into.")] = 262_144,
    rounds: Annotated[int, typer.Option(min=0, help="Of k-means that replaced codes then follow.")] = 5,
    row_steps: Annotated[int, typer.Option(min=0, help="Steps for the decoder's rows of replaced codes.")] = 150,
    max_churn: Annotated[float, typer.Option(min=0, max=1, help="A gate: the share of tokens that may change.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check all that the repair needs, and report what is dead; change nothing."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where hits prove little, or the gates' data are few.")
    ] = False,
    as_json: AsJson = False,
    json_file: JsonFile = None,
    report: Annotated[Path | None, typer.Option(help="Write a report as one HTML file, whatever the outcome.")] = None,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            help="Write the job's metrics here, whatever the outcome, for node_exporter's textfile collector."
        ),
    ] = None,
    pushgateway: Annotated[str | None, typer.Option(metavar="URL", help="Push the job's metrics there.")] = None,
    lock_seconds: Annotated[float, typer.Option(min=1, help="How long the lock outlives a run that vanished.")] = 600.0,
    prometheus_auth: PrometheusAuth = None,
    prometheus_ca: PrometheusCa = None,
    credentials: Credentials = NO_CREDENTIALS,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Repair a codebook: find dead codes, put them to use, prove that nothing got worse, publish, swap.

    A preflight checks whatever can fail before the work begins. --report, JSON and the metrics are written whatever
    the outcome.
    """
    check_device(device)
    json_file = json_target(as_json, json_file)
    check_outputs(json_file=json_file, report=report, metrics_file=metrics_file)
    check_prometheus(prometheus)
    if (scope == "full") != (out is not None):
        raise typer.BadParameter("--scope full needs --output, and --output goes with --scope full")
    if (data is None) == (from_servers is None):
        raise typer.BadParameter("vectors come from --data or from --from-servers: give one of them")
    if from_servers is not None and gate_data is not None:
        raise typer.BadParameter("--gate-data goes with --data")
    with usage_errors():
        # Servers that give vectors report how their codes are used too, unless Prometheus does.
        asked = server_addresses(servers or (None if prometheus or counts_file else from_servers))
        options = credentials.read()
        checked(options, *asked, *server_addresses(from_servers), *server_addresses(activate))
        if counts_file is not None and (prometheus is not None or asked):
            raise ValueError("hits are counted by --counts, or by --prometheus or --servers, not by both")
        entry, since = _prometheus(prometheus, window, asked, prometheus_auth, prometheus_ca)
    # Of several processes, the first reports what they did.
    leads = int(os.environ.get("RANK", "0")) == 0
    # From here on, torch is imported.
    from rich.console import Console

    from foldmint_maintenance.cli.progress import PhaseDisplay
    from foldmint_maintenance.distributed.process_group import own_device, process_group
    from foldmint_maintenance.repair import job as module
    from foldmint_maintenance.repair.config import RepairConfig, RepairJob
    from foldmint_maintenance.repair.decoder_finetune import RowConfig
    from foldmint_maintenance.repair.full_retrain import retrained
    from foldmint_maintenance.repair.gates import GateLimits
    from foldmint_maintenance.repair.job_metrics import recorded
    from foldmint_maintenance.repair.run_record import RunRecord, concluded

    use_threads(threads)
    display = PhaseDisplay(Console(stderr=True, quiet=not leads))
    log = display.log
    with usage_errors():
        own = own_device(device)
        config = RepairConfig(
            scope="repair" if scope == "full" else scope,
            strategy=strategy,
            dead_threshold=dead_threshold,
            measure=measure,
            min_exposure=min_exposure,
            residues=residues,
            rounds=rounds,
            rows=RowConfig(steps=row_steps, seed=seed),
            limits=GateLimits(churn=max_churn),
            seed=seed,
            force=force,
        )
        job = RepairJob(
            store,
            config,
            data,
            server_addresses(from_servers),
            gate_data,
            server_addresses(activate),
            dry_run,
            lock_seconds,
            str(own),
            connection=options,
        )
    counts = _counts(prometheus, since, selector, asked, entry, options, counts_file)
    run = RunRecord(store, datetime.now(UTC), dry_run, show=display.phase)

    def conclude(run: RunRecord) -> None:
        record.result = run.measured()
        if leads:
            _write(run, json_file, report)

    with (
        faults(),
        recorded(store, metrics_file if leads else None, pushgateway if leads else None, log) as record,
        concluded(run, conclude),
        faults(),
        stoppable(),
        closing(display),
    ):
        if leads:
            found = _checked(job, asked, prometheus, entry, (json_file, report, metrics_file), out, counts_file)
            run.problems, run.warnings = ([str(one) for one in some] for some in (found.problems, found.warnings))
            for warning in run.warnings:
                log(f"warning: {warning}")
            found.check()
            make_parents(json_file, report)
        with process_group(own) as group:
            job = replace(job, group=group)
            if out is None:
                done = module.repair(job, counts, log, run)
            else:
                done = retrained(job, out, full_steps, counts, log, run)
            run.report_result(done)
        if leads:
            _print_result(run, json_file)
        if not done.passed:
            raise typer.Exit(GATE_FAILED)


def _prometheus(
    url: str | None, window: str, servers: Sequence[str], auth: Path | None, ca: Path | None
) -> "tuple[Entry, float]":
    """How to get into a Prometheus, and the window in seconds. Raises ValueError if the options are invalid."""
    from foldmint.durations import parse_duration
    from foldmint_maintenance.usage.prometheus_api import Prometheus, read_entry

    if url is not None and servers:
        raise ValueError("hits are counted by --prometheus or by --servers, not by both")
    entry = read_entry(auth, ca)
    if url is not None:
        Prometheus(url, entry=entry)  # refuses what is not an address
    return entry, parse_duration(window)


def _checked(
    job: "RepairJob",
    counted_by: Sequence[str],
    prometheus: str | None,
    entry: "Entry",
    files: tuple[Path | None, Path | None, Path | None],
    out: Path | None,
    counts_file: Path | None,
) -> "Findings":
    """What the preflight finds. files: --json-file, --report, --metrics-file."""
    from foldmint_maintenance.errors import UsageUnknown
    from foldmint_maintenance.repair import preflight as module
    from foldmint_maintenance.usage.prometheus_api import Prometheus
    from foldmint_maintenance.usage.sources import from_file

    json_file, report, metrics_file = files

    def counting(found: "Findings") -> None:
        if prometheus is not None:
            try:
                Prometheus(prometheus, _SECONDS, entry).now()
            except UsageUnknown as error:
                found.add(f"--prometheus: {error}", "start it, or give its address, --prometheus-auth, --prometheus-ca")

        if counts_file is not None:
            try:
                from_file(counts_file)
            except UsageUnknown as error:
                found.add(
                    f"--counts: {error}",
                    "give the usage.json of a bulk job, or a file of usage --json-file FILE --counts",
                )

    def training(found: "Findings") -> None:
        if out is not None and (out / "model").exists():
            found.add(f"--output: {out / 'model'} is there already", "name another folder, or remove it")

    checks: list[Check] = [
        counting,
        training,
        module.check_outputs(
            [("--json-file", None if to_stdout(json_file) else json_file), ("--report", report), ("--output", out)]
        ),
        # What became of the run is in the store and in its exit code; collectors may be missing.
        module.check_outputs([("--metrics-file", metrics_file)], required=False),
    ]
    return module.preflight(job, counted_by, checks)


def _counts(
    prometheus: str | None,
    window: float,
    selector: str,
    servers: Sequence[str],
    entry: "Entry",
    options: "ConnectionOptions",
    counts_file: Path | None,
) -> "Callable[[Store, str], CodeCounts] | None":
    """What to ask for the counts of a version; None: the codebook's own."""
    from foldmint_maintenance.usage import sources

    if counts_file is not None:
        return lambda store, version: sources.from_file(counts_file, store.codebook(version).digest)
    if prometheus is not None:
        return lambda store, version: sources.from_prometheus(  # noqa: ARG005
            prometheus, window, selector=selector, entry=entry
        )
    if servers:
        return lambda store, version: sources.from_servers(servers, version, **options)  # noqa: ARG005
    return None


def _write(run: "RunRecord", json_file: Path | None, report: Path | None) -> None:
    write_json(json_file, run.as_json())
    if report is not None:
        from foldmint_maintenance.repair import report as repair_report

        make_parents(report)
        report.write_text(repair_report.page(run), encoding="utf-8")


def _print_result(run: "RunRecord", json_file: Path | None) -> None:
    done = run.result
    if done is None:
        return
    what = f"published codebook {done.version}" if done.published else "nothing was published"
    verb = "would be replaced" if run.dry_run else "replaced"
    say(f"{done.dead} codes dead, {len(done.replaced)} {verb}; {what}", json_file)
    for note in done.notes:
        say(f"- {note}", json_file)
