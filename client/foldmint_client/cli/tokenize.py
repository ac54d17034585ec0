"""The command `foldmint tokenize`: tokens of structure files.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
"""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foldmint_client.cli.common import (
    INPUT,
    LOCALHOST,
    OUTPUT,
    STDIN,
    STDOUT,
    TOKENS,
    AsJson,
    Attempts,
    Balance,
    Failures,
    InFlight,
    Quiet,
    Server,
    Timeout,
    check_output_file,
    connected,
    finish,
    output_errors,
)
from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials
from foldmint_client.cli.tokenize_output import Format, check_output, resume_hint

if TYPE_CHECKING:
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.client import Client
    from foldmint_client.io.pending_inputs import PendingInputs
    from foldmint_client.io.token_writers import Writer
    from foldmint_client.models.left_out import Tally
    from foldmint_client.models.tokenize_request import TokenizeKeywords


class _Assignment(StrEnum):
    INDEPENDENT = "independent"
    ANCHORED = "anchored"
    TRACKING = "tracking"


@with_credentials
def tokenize(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Structure files, archives, folders of them, or patterns; PATH:A,B for chains, ARCHIVE!MEMBER for a "
            "member, @FILE for what its lines name, - for standard input.",
        ),
    ],
    form: Annotated[
        Format, typer.Option("--format", help="Format of the output.", rich_help_panel=OUTPUT)
    ] = Format.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write, or the folder with --rows-per-shard; standard output by default.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    rows_per_shard: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="With --format parquet, write files part-00000.parquet and so on into the folder --output, each of N "
            "chains or a few more; 0: one file.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted run: skip structures that the output has already.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel=OUTPUT)
    ] = False,
    unordered: Annotated[
        bool,
        typer.Option(
            "--unordered", help="Write results as they arrive, not in the order of the input.", rich_help_panel=OUTPUT
        ),
    ] = False,
    insertion_codes: Annotated[
        bool, typer.Option("--insertion-codes", help="Add insertion codes to JSON.", rich_help_panel=OUTPUT)
    ] = False,
    failures: Failures = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    chain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this chain, by the author's name for it (auth_asym_id); may be repeated.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    model_number: Annotated[
        int, typer.Option(min=0, help="Model of the file to read; 0: the first.", rich_help_panel=INPUT)
    ] = 0,
    reading: Annotated[
        Literal["all", "esm"] | None,
        typer.Option(
            help="Residues to read: all of proteins, or those that ESM's own reader takes; set by the model if not "
            "given.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    min_plddt: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="X",
            help="Treat residues whose CA has a lower B-factor (the pLDDT in predicted models) as without a frame.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    assembly: Annotated[
        str,
        typer.Option(
            metavar="ID", help="Build this biological assembly, by its ID in the file.", rich_help_panel=INPUT
        ),
    ] = "",
    renumber: Annotated[
        bool,
        typer.Option(
            "--renumber",
            help="Number residues 1, 2, 3, ... in each chain, whatever the file says.",
            rich_help_panel=INPUT,
        ),
    ] = False,
    whole: Annotated[
        bool, typer.Option("--complex", help="Look for neighbors across chains.", rich_help_panel=TOKENS)
    ] = False,
    assignment: Annotated[
        _Assignment,
        typer.Option(
            help="How codes are chosen. independent: the code nearest to each residue's vector; tracking: those that "
            "rebuild the whole chain best; anchored: the same between anchors, so that a token depends on its segment "
            "alone.",
            rich_help_panel=TOKENS,
        ),
    ] = _Assignment.INDEPENDENT,
    codebook_version: Annotated[
        str | None,
        typer.Option(
            metavar="V",
            help="Codebook version for all structures; ACTIVE follows the server from one structure to the next. By "
            "default, the version that is active at the start, or that of the run that is resumed.",
            rich_help_panel=TOKENS,
        ),
    ] = None,
    special_tokens: Annotated[
        bool, typer.Option("--special-tokens", help="Enclose tokens in BOS and EOS.", rich_help_panel=TOKENS)
    ] = False,
    distances: Annotated[
        bool, typer.Option("--distances", help="Add each residue's distance from its code.", rich_help_panel=TOKENS)
    ] = False,
    first_frames: Annotated[
        bool,
        typer.Option(
            "--first-frames", help="Add the first frame of each segment without a gap.", rich_help_panel=TOKENS
        ),
    ] = False,
    server: Server = LOCALHOST,
    timeout: Timeout = 60.0,
    in_flight: InFlight = 64,
    attempts: Attempts = 5,
    balance: Balance = "round_robin",
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Print the tokens of structure files, chain by chain, in the order of the input.

    A file that cannot be read does not stop the others. An archive that is damaged or truncated counts as one failure,
    after the members that can be read. Members are named ARCHIVE!MEMBER, chains of a file PATH:A,B.

    An output file gets its name when it is complete. Until then JSON lines are in FILE.part, and shards are complete
    one by one. With --resume, an interrupted run continues there, and a finished run retries what failed; a path given
    twice is tokenized once.

    Residues of a file that its tokens do not cover are listed as left_out beside the tokens of their chain; those of no
    chain with tokens, and warnings, beside those of the first. A line at the end reports any left out of a protein.

    --json prints a summary: inputs, tokenized, earlier (in the output already), failed, residues, seconds, failures by
    kind, left_out by kind, and warnings, the number of structures with warnings.
    """
    if output == STDOUT:
        output = None
    check_output(form, output, rows_per_shard, resume, as_json, overwrite)
    check_output_file(failures, "--failures")
    if paths.count(STDIN) > 1:
        raise typer.BadParameter("standard input can be read once only", param_hint="PATH")
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.io.discovery import find_inputs
    from foldmint_client.io.pending_inputs import PendingInputs
    from foldmint_client.io.resumable_output import output as opened
    from foldmint_client.io.token_writers import OutputFormat
    from foldmint_client.models.left_out import Tally

    started = time.monotonic()
    problems: list[tuple[str, str]] = []
    notes: list[str] = []
    inputs = [*find_inputs(paths, lambda path, why: problems.append((path, why)), notes.append)]
    pending = PendingInputs(inputs)
    tally = Tally()
    options: TokenizeKeywords = {
        "model_number": model_number,
        "chains": chain or (),
        "reading": reading,
        "min_plddt": min_plddt,
        "assembly": assembly,
        "renumber": renumber,
        "complex": whole,
        "special_tokens": special_tokens,
        "distances": distances,
        "assignment": assignment.value,
        "first_frames": first_frames,
        "codebook_version": codebook_version,
    }
    with (
        resume_hint(output, rows_per_shard),
        output_errors(output),
        connected(server, timeout, attempts, credentials, balance) as client,
        opened(
            OutputFormat(form),
            output,
            rows_per_shard=rows_per_shard,
            resumed=pending if resume else None,
            insertion_codes=insertion_codes,
        ) as (writer, resume_state),
    ):
        if resume_state.sources:
            resume_state.check(
                str(output),
                model=client.model().model,
                distances=distances,
                special_tokens=special_tokens,
                assignment=assignment.value,
            )
            options["codebook_version"] = codebook_version or resume_state.version
        if resume:
            pending.skip(resume_state.sources)
        bar = not quiet and not (output is None and sys.stdout.isatty())
        with Reporter(pending.number, shown=bar, failures=failures, quiet=quiet) as reporter:
            for note in notes:
                reporter.note(note)
            for path, why in problems:
                reporter.failure(path, why, counted=False)
            _write_all(client, pending, in_flight, unordered, options, writer, reporter, tally)
    for line in () if quiet else tally.lines():
        typer.echo(line, err=True)
    total = pending.skipped + reporter.succeeded + reporter.failed
    finish(
        reporter,
        f"{reporter.failed} of {total} inputs have no tokens",
        {
            "inputs": total,
            "tokenized": reporter.succeeded,
            "earlier": pending.skipped,
            "failed": reporter.failed,
            "residues": reporter.residues,
            "seconds": round(time.monotonic() - started, 3),
            "failures": reporter.counts(),
            "left_out": tally.counts(),
            "warnings": tally.warned,
            "output": str(output),
        }
        if as_json
        else None,
        quiet=quiet,
    )


def _write_all(
    client: "Client",
    pending: "PendingInputs",
    in_flight: int,
    unordered: bool,
    options: "TokenizeKeywords",
    writer: "Writer",
    reporter: "Reporter",
    tally: "Tally",
) -> None:
    from contextlib import closing

    from foldmint_client.io.input_reader import InputReader
    from foldmint_client.models.responses import Tokens

    with InputReader(pending.wants, reporter.failure, reporter.note) as reader:
        structures = reader.read(pending.inputs)
        results = client.tokenize_many(structures, in_flight=in_flight, ordered=not unordered, **options)
        with closing(results):
            for source, result in results:
                if isinstance(result, Tokens):
                    writer.write(source, result)
                    tally.add(source, result.left_out, result.warnings)
                    reporter.done(len(result))
                else:
                    reporter.failure(source, str(result).removeprefix(f"{source}: "), result)
