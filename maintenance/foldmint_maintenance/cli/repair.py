"""The command `foldmint-maintenance repair`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials
from foldmint_maintenance.cli.common import (
    PrometheusAuth,
    PrometheusCa,
    Threads,
    checked,
    faults,
    server_addresses,
    usage_errors,
    use_threads,
)

if TYPE_CHECKING:
    from foldmint_client.connection import ConnectionOptions
    from foldmint_maintenance.repair.result import RepairResult
    from foldmint_maintenance.usage.prometheus_api import Entry
    from foldmint_maintenance.usage.statistics import CodeCounts
    from foldmint_tokenizer.store.model_store import Store

GATE_FAILED = 3
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
        typer.Option(help="Move dead codes alone; let all codes follow; or train encoder and decoder too (--out)."),
    ] = "repair",
    strategy: Annotated[
        Literal["batch", "kmeans++"], typer.Option(help="Where dead codes go: anywhere, or where codes are far.")
    ] = "kmeans++",
    dead_threshold: Annotated[float, typer.Option(help="A code below it is dead.")] = 1e-5,
    measure: Annotated[
        Literal["count", "frequency"], typer.Option(help="What is below it: N, hits a step; or the share of all hits.")
    ] = "count",
    min_exposure: Annotated[float, typer.Option(help="Residues seen a code; with fewer, none is called dead.")] = 10.0,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Count hits that Prometheus has seen; else N of the codebook.")
    ] = None,
    window: Annotated[str, typer.Option(help="How far back Prometheus is asked: 12h, 7d, …")] = "7d",
    selector: Annotated[str, typer.Option(help='Labels of the servers in Prometheus: job="foldmint".')] = "",
    servers: Annotated[
        str | None, typer.Option(metavar=_SERVERS, help="Count hits that these servers have seen.")
    ] = None,
    gate_data: Annotated[Path | None, typer.Option(help="A set for the gates; else part of --data is kept.")] = None,
    activate: Annotated[
        str | None, typer.Option(metavar=_SERVERS, help="Servers to swap and check; else they poll the store.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Scope full: folder of the job; OUT/model in the end.")] = None,
    full_steps: Annotated[int, typer.Option(help="Scope full: steps of each of its two stages.")] = 2000,
    residues: Annotated[int, typer.Option(help="Of the batch that dead codes are put into.")] = 262_144,
    rounds: Annotated[int, typer.Option(help="Of k-means that replaced codes then follow.")] = 5,
    row_steps: Annotated[int, typer.Option(help="Steps for the decoder's rows of replaced codes.")] = 150,
    max_churn: Annotated[float, typer.Option(help="A gate: the share of tokens that may change.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what is dead; change nothing.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was done here.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write it with plots here, as one HTML file.")] = None,
    metrics_file: Annotated[
        Path | None, typer.Option(help="Write the job's metrics here, for node_exporter's textfile collector.")
    ] = None,
    pushgateway: Annotated[str | None, typer.Option(metavar="URL", help="Push the job's metrics there.")] = None,
    lock_seconds: Annotated[float, typer.Option(help="How long the lock outlives a run that vanished.")] = 600.0,
    prometheus_auth: PrometheusAuth = None,
    prometheus_ca: PrometheusCa = None,
    credentials: Credentials = NO_CREDENTIALS,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one.")] = "auto",
    threads: Threads = None,
) -> None:
    """Repair a codebook: find dead codes, put them to use, prove that nothing got worse, publish, swap.

    Exit codes: 0 done, also if nothing was to do; 1 an error; 2 a wrong option; 3 a gate failed, nothing was published;
    4 another run holds the store's lock; 5 a server failed, all were brought back; 130 stopped.
    """
    from foldmint_maintenance.distributed.process_group import own_device, process_group
    from foldmint_maintenance.repair import job as module
    from foldmint_maintenance.repair.config import RepairConfig, RepairJob
    from foldmint_maintenance.repair.decoder_finetune import RowConfig
    from foldmint_maintenance.repair.full_retrain import retrained
    from foldmint_maintenance.repair.gates import GateLimits
    from foldmint_maintenance.repair.job_metrics import recorded
    from foldmint_maintenance.usage.prometheus_api import read_entry

    use_threads(threads)
    with usage_errors():
        if (scope == "full") != (out is not None):
            raise ValueError("scope full needs --out, and --out goes with scope full")
        own = own_device(device)
        # Servers that give vectors tell how their codes are used too, unless Prometheus does.
        asked = servers or (None if prometheus else from_servers)
        options = credentials.read()
        checked(options, *server_addresses(asked), *server_addresses(from_servers), *server_addresses(activate))
        entry = read_entry(prometheus_auth, prometheus_ca)
        counts = _counts(prometheus, window, selector, server_addresses(asked), entry, options)
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
        )
    # Of several processes, the first tells what they did.
    leads = int(os.environ.get("RANK", "0")) == 0
    tell: Callable[[str], None] = lambda text: typer.echo(text, err=True) if leads else None  # noqa: E731
    with (
        faults(),
        recorded(store, metrics_file if leads else None, pushgateway if leads else None, tell) as record,
        faults(),
        process_group(own) as group,
    ):
        with usage_errors():
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
                group,
                options,
            )
        for path in (data, gate_data):
            # Even if there is nothing to repair: better told now than on the day when there is.
            if path is not None and not path.exists():
                raise FileNotFoundError(f"there is no {path}")
        for file in (json_file, report):
            # A folder that cannot be made is better told before the work than after it.
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
        done = module.repair(job, counts, tell) if out is None else retrained(job, out, full_steps, counts, tell)
        record.result = done.as_json()
        if leads:
            _tell(done, store, json_file, report)
        if not done.passed:
            raise typer.Exit(GATE_FAILED)


def _counts(
    prometheus: str | None,
    window: str,
    selector: str,
    servers: tuple[str, ...],
    entry: "Entry",
    options: "ConnectionOptions",
) -> "Callable[[Store, str], CodeCounts] | None":
    """What to ask for the counts of a version; None: the codebook's own. Raises ValueError if both are given."""
    from foldmint_maintenance.usage import sources
    from foldmint_maintenance.usage.prometheus_api import Prometheus, parse_duration

    if prometheus is not None and servers:
        raise ValueError("hits are counted by Prometheus or by servers, not by both")
    if prometheus is not None:
        address, seconds = prometheus, parse_duration(window)
        Prometheus(address, entry=entry)  # refuses what is not an address
        return lambda store, version: sources.from_prometheus(  # noqa: ARG005
            address, seconds, selector=selector, entry=entry
        )
    if servers:
        return lambda store, version: sources.from_servers(servers, version, **options)  # noqa: ARG005
    return None


def _tell(done: "RepairResult", store: str, json_file: Path | None, report: Path | None) -> None:
    if json_file is not None:
        json_file.write_text(json.dumps(done.as_json(), indent=2) + "\n", encoding="utf-8")
    if report is not None:
        from foldmint_maintenance.repair import report as repair_report

        report.write_text(repair_report.page(done, store), encoding="utf-8")
    what = f"published codebook {done.version}" if done.published else "nothing was published"
    typer.echo(f"{done.dead} codes dead, {len(done.replaced)} replaced; {what}")
    for note in done.notes:
        typer.echo(f"- {note}")
