"""The options of the command `foldmint-bulk`, and its run."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from foldmint.command_line import CONTEXT_SETTINGS, GroupedCommand, print_version
from foldmint_bulk.cli.help_text import EPILOG, ERROR, FAILED, LEFT, USAGE

if TYPE_CHECKING:
    from foldmint_bulk.driver import Outcome
    from foldmint_bulk.inputs.base import InputOptions
    from foldmint_bulk.job import Job
    from foldmint_bulk.output.summaries import Summary

_JOB, _INPUTS, _SPEED = "What is computed", "Parquet files and trajectories", "How it runs"
_PARTS, _REPORTS = "Parts of a job", "Reports"

app = typer.Typer(
    name="foldmint-bulk",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
)


class _Stopped(BaseException):
    """A signal wants the run to end."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(frozen=True)
class _Metrics:
    address: tuple[str, int] | None
    file: Path | None


@app.command(cls=GroupedCommand, epilog=EPILOG)
def bulk(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files, folders and patterns of structures, archives, Parquet files, databases of Foldcomp and "
            "trajectories; paths or URLs.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option("--output", "-o", metavar="OUT", help="A folder or URL, of this job alone.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A store, or the name of an embedded model; foldmint by default.", rich_help_panel=_JOB
        ),
    ] = None,
    codebook_version: Annotated[
        str | None,
        typer.Option(
            metavar="V", help="Of the codebook; by default the one active at the start.", rich_help_panel=_JOB
        ),
    ] = None,
    assignment: Annotated[
        Literal["independent", "anchored", "tracking"],
        typer.Option(help="How codes are chosen.", rich_help_panel=_JOB),
    ] = "independent",
    reading: Annotated[
        Literal["all", "esm"] | None,
        typer.Option(help="Which residues count; the model's own by default.", rich_help_panel=_JOB),
    ] = None,
    unit_structures: Annotated[
        int, typer.Option(min=1, metavar="N", help="Structures a unit, and so a part.", rich_help_panel=_JOB)
    ] = 10_000,
    id_column: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The column with ids; found by its name by default.", rich_help_panel=_INPUTS
        ),
    ] = "",
    structure_column: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The column with structure files or coordinates; found by its name by default.",
            rich_help_panel=_INPUTS,
        ),
    ] = "",
    format_: Annotated[
        Literal["pdb", "mmcif", "bcif"] | None,
        typer.Option(
            "--format", help="Of structure files in Parquet files; detected by default.", rich_help_panel=_INPUTS
        ),
    ] = None,
    topology: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="The atoms of trajectories: PDB, mmCIF, BinaryCIF or GRO; by default a file beside each.",
            rich_help_panel=_INPUTS,
        ),
    ] = "",
    stride: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of trajectories, take every Nth frame.", rich_help_panel=_INPUTS)
    ] = 1,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, cuda:1, …; auto takes GPUs if there are any. Workers share out the GPUs.",
            rich_help_panel=_SPEED,
        ),
    ] = "auto",
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes with a model each.", rich_help_panel=_SPEED)
    ] = 1,
    parsers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that parse, for each worker; by default 1, with a GPU the worker's share of the cores.",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    parser_memory: Annotated[
        float, typer.Option(min=0.5, metavar="GIB", help="Memory that a parser may use.", rich_help_panel=_SPEED)
    ] = 4.0,
    parser_timeout: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="Time that parsing a structure may take.", rich_help_panel=_SPEED),
    ] = 120.0,
    engine: Annotated[
        str,
        typer.Option(help="What runs the workers: local, this machine; ray, a Ray cluster.", rich_help_panel=_SPEED),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help="Of the Ray cluster; by default RAY_ADDRESS, else one on this machine for this run.",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    slice_: Annotated[
        str | None,
        typer.Option("--slice", metavar="I/N", help="Do slice I of N alone, from 0 on.", rich_help_panel=_PARTS),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Do units again that failed, or in which something was killed or could not be read.",
            rich_help_panel=_PARTS,
        ),
    ] = False,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write metrics here, for node_exporter's textfile collector.",
            rich_help_panel=_REPORTS,
        ),
    ] = None,
    metrics_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve metrics here.", rich_help_panel=_REPORTS)
    ] = None,
    version: Annotated[  # noqa: ARG001 (its callback does it)
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tokenize many structures, in units that any number of processes can do.

    The first run plans the job, later ones do what is left, and the last one sums up: run it until it exits with 0.
    """
    metrics = _Metrics(_address(metrics_listen), metrics_file)
    own_slice = _slice(slice_)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise typer.BadParameter(f"{device!r} is not a device: auto, cpu, cuda or cuda:NUMBER", param_hint="'--device'")
    if metrics_file is not None and metrics_file.is_dir():
        raise typer.BadParameter(f"{metrics_file} is a folder; expected a file", param_hint="'--metrics-file'")
    # Packages of the extra from here on; torch only once the inputs are known to exist.
    from foldmint_bulk.engines.registry import ENGINES, find_engine

    if engine not in ENGINES:
        raise typer.BadParameter(f"{engine!r} is not one of {', '.join(ENGINES)}", param_hint="'--engine'")
    if ray_address is not None and engine != "ray":
        raise typer.BadParameter("it needs --engine ray", param_hint="'--ray-address'")
    if engine == "ray" and device.startswith("cuda:"):
        raise typer.BadParameter(f"Ray chooses GPUs; give cuda instead of {device}", param_hint="'--device'")
    run_units = find_engine(engine, ray_address=ray_address)
    from foldmint_bulk.cli.display import Display
    from foldmint_bulk.cli.metrics import Metrics
    from foldmint_bulk.driver import run
    from foldmint_bulk.inputs.base import InputOptions
    from foldmint_bulk.inputs.files import refuse_credentials
    from foldmint_bulk.parsing.pool import ParserLimits
    from foldmint_bulk.planning import check_inputs, load_units, plan
    from foldmint_bulk.worker import WorkerSettings

    given = InputOptions(reading or "all", id_column, structure_column, format_ or "", topology, stride)
    with _faults(), _signals():
        refuse_credentials(out)
        units = load_units(out)
        if units is None:
            check_inputs(inputs, given)
        job = _job(out, inputs, model, codebook_version, assignment, reading, unit_structures, given)
        with Display(Metrics(metrics.address, metrics.file)) as display:
            if units is None:
                skipped: Counter[str] = Counter()
                units = plan(job, skipped)
                if skipped:
                    display.note(f"skipped: {_counts(skipped)}")
            limits = ParserLimits(int(parser_memory * 2**30), parser_timeout)
            outcome = run(
                job,
                units,
                run_units,
                workers=workers,
                settings=WorkerSettings(device, parsers, _threads(workers) if engine == "local" else None, limits),
                observer=display,
                slice=own_slice,
                retry_failed=retry_failed,
            )
    _conclude(out, outcome, sliced=slice_ is not None)


def _job(
    out: str,
    inputs: Sequence[str],
    model: str | None,
    codebook_version: str | None,
    assignment: str,
    reading: Literal["all", "esm"] | None,
    unit_structures: int,
    given: "InputOptions",
) -> "Job":
    """The job, as it was begun, or as it begins now."""
    from foldmint_bulk.job import Job, JobOptions, find_job, identify
    from foldmint_tokenizer.errors import ModelError

    found = find_job(out)
    if found is not None and codebook_version is None:
        codebook_version = found.model.codebook_version
    identity, own_reading = identify(model, codebook_version)
    options = JobOptions(assignment, reading or own_reading, unit_structures, given)
    if assignment != "independent" and not identity.motions:
        raise ModelError(f"the codes of {identity.name} do not encode motions: it has no {assignment} assignment")
    return Job(out, identity, options, tuple(inputs)).begin()


def _conclude(out: str, outcome: "Outcome", *, sliced: bool) -> None:
    """Say what became of the run, and exit."""
    if outcome.summary is None:
        typer.echo(f"{outcome.left} units of {out} are left to other runs", err=True)
        raise typer.Exit(0 if sliced else LEFT)
    _sum_up(out, outcome.summary)
    if outcome.summary.errors:
        raise typer.Exit(FAILED)


def _sum_up(out: str, summary: "Summary") -> None:
    typer.echo(f"{out}: {summary.structures:,} structures, {summary.chains:,} chains, {summary.residues:,} residues")
    if summary.skipped:
        typer.echo(f"skipped in compressed tars: {_counts(summary.skipped)}")
    if summary.failures:
        typer.echo(f"failed: {_counts(summary.failures)}; see failures.parquet")
    if summary.errors:
        typer.echo(f"failed as a whole: {len(summary.errors)} units; see failures.parquet, and --retry-failed")


def _counts(counts: "Counter[str]") -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def _threads(workers: int) -> int:
    """CPU threads of each worker."""
    return max(1, len(os.sched_getaffinity(0)) // workers)


def _slice(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise typer.BadParameter(f"{text!r} is not I/N with I from 0 to N - 1", param_hint="'--slice'")
    return int(found[1]), int(found[2])


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is not HOST:PORT", param_hint="'--metrics-listen'")
    return host.strip("[]"), int(port)


@contextmanager
def _faults() -> Iterator[None]:
    """Turn expected errors into one message on stderr and an exit code."""
    from foldmint_bulk.errors import BulkError, InvalidInput, JobDiffers
    from foldmint_tokenizer.errors import TokenizerError

    try:
        yield
    except (InvalidInput, JobDiffers) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    except (BulkError, TokenizerError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(ERROR) from error
    except _Stopped as stopped:
        typer.echo(f"stopped by {signal.Signals(stopped.number).name}; run it again to go on", err=True)
        raise typer.Exit(128 + stopped.number) from stopped


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the workers, and then the run."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (as signal.signal calls it)
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
