"""The command `foldmint tokenize`: tokens of structure files.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foldmint_client.cli.common import (
    LOCALHOST,
    AsJson,
    Attempts,
    Failures,
    Quiet,
    Server,
    Timeout,
    TlsCa,
    TlsCertificate,
    TlsKey,
    TokenFile,
    UseTls,
    check_output_file,
    connected,
    finish,
    output_errors,
)

if TYPE_CHECKING:
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.client import Client
    from foldmint_client.io.discovery import Input
    from foldmint_client.io.token_writers import Writer
    from foldmint_client.models.tokenize_request import TokenizeKeywords


class _Assignment(StrEnum):
    INDEPENDENT = "independent"
    ANCHORED = "anchored"
    TRACKING = "tracking"


class _Format(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    NPZ = "npz"


def tokenize(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Structure files, folders of them, patterns, or - for standard input."),
    ],
    server: Server = LOCALHOST,
    form: Annotated[_Format, typer.Option("--format", help="How tokens are written.")] = _Format.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write, or with --rows-per-shard the folder; standard output unless told.",
        ),
    ] = None,
    rows_per_shard: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Of Parquet, write files part-00000.parquet and so on into the folder --output, of N chains or a few "
            "more; 0: one file.",
        ),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted run: do not ask for what is in the output already."),
    ] = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Write answers as they come, not in the order of the input.")
    ] = False,
    whole: Annotated[bool, typer.Option("--complex", help="Look for neighbors across chains.")] = False,
    special_tokens: Annotated[bool, typer.Option("--special-tokens", help="Enclose tokens in BOS and EOS.")] = False,
    distances: Annotated[bool, typer.Option("--distances", help="Add each residue's distance from its code.")] = False,
    assignment: Annotated[
        _Assignment,
        typer.Option(
            help="How codes are chosen: each by itself; along the chain, to rebuild it as well as can be; or that, "
            "measured anew at anchors, so that a token depends on its stretch alone."
        ),
    ] = _Assignment.INDEPENDENT,
    first_frames: Annotated[
        bool, typer.Option("--first-frames", help="Add the frame that each stretch without a gap begins with.")
    ] = False,
    insertion_codes: Annotated[bool, typer.Option("--insertion-codes", help="Add insertion codes to JSON.")] = False,
    chain: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this chain; may be repeated.")] = None,
    model_number: Annotated[int, typer.Option(min=0, help="Model of the file to read; 0 is the first.")] = 0,
    codebook_version: Annotated[
        str | None,
        typer.Option(
            metavar="V",
            help="Of the codebook to use, for all structures; ACTIVE follows the server from one to the next. Unless "
            "told, the one that is active at the start, or of a run that is resumed its own.",
        ),
    ] = None,
    failures: Failures = None,
    as_json: AsJson = False,
    timeout: Timeout = 60.0,
    in_flight: Annotated[int, typer.Option(min=1, help="Structures on their way at once, at most.")] = 64,
    attempts: Attempts = 5,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    quiet: Quiet = False,
) -> None:
    """Print the tokens of structure files, chain by chain, in the order of the input.

    A bad file does not stop the others. A file that is written appears under its name when all is done; until then
    JSON lines are in FILE.part, and shards are complete one by one: with --resume, an interrupted run goes on there,
    and a finished one asks again for what failed. A path named twice counts once then.

    --json prints a summary: inputs, tokenized, earlier (not asked again), failed, residues, seconds, and failures by
    kind.
    """
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.io.discovery import STDIN, find
    from foldmint_client.io.resumable_output import output as opened
    from foldmint_client.io.token_writers import OutputFormat

    if output == Path(STDIN):
        output = None
    _check_output(form, output, rows_per_shard, resume, as_json)
    check_output_file(failures, "--failures")
    if paths.count(STDIN) > 1:
        raise typer.BadParameter("standard input can be read once only", param_hint="PATH...")
    started = time.monotonic()
    problems: list[tuple[str, str]] = []
    inputs = [*find(paths, lambda path, why: problems.append((path, why)))]
    sources = {found.source for found in inputs} if resume else None
    total = len(inputs) + len(problems)
    options: TokenizeKeywords = {
        "model_number": model_number,
        "chains": chain or (),
        "complex": whole,
        "special_tokens": special_tokens,
        "distances": distances,
        "assignment": assignment.value,
        "first_frames": first_frames,
        "codebook_version": codebook_version,
    }
    with (
        _hint(output, rows_per_shard),
        output_errors(output),
        connected(server, timeout, attempts, token_file, tls, (tls_ca, tls_certificate, tls_key)) as client,
        opened(
            OutputFormat(form),
            output,
            rows_per_shard=rows_per_shard,
            resumed=sources,
            insertion_codes=insertion_codes,
        ) as (writer, earlier),
    ):
        if earlier.sources:
            earlier.check(
                str(output),
                model=client.model().model,
                distances=distances,
                special_tokens=special_tokens,
                assignment=assignment.value,
            )
            options["codebook_version"] = codebook_version or earlier.version
            inputs = [*{found.source: found for found in inputs if found.source not in earlier.sources}.values()]
        bar = not quiet and not (output is None and sys.stdout.isatty())
        with Reporter(len(inputs), shown=bar, failures=failures) as reporter:
            for path, why in problems:
                reporter.failure(path, why, counted=False)
            _write_all(client, inputs, in_flight, unordered, options, writer, reporter)
    finish(
        reporter,
        f"{reporter.failed} of {total} inputs have no tokens",
        {
            "inputs": total,
            "tokenized": reporter.succeeded,
            "earlier": total - reporter.succeeded - reporter.failed,
            "failed": reporter.failed,
            "residues": reporter.residues,
            "seconds": round(time.monotonic() - started, 3),
            "failures": reporter.counts(),
            "output": str(output),
        }
        if as_json
        else None,
        quiet=quiet,
    )


def _check_output(form: _Format, output: Path | None, rows_per_shard: int, resume: bool, as_json: bool) -> None:
    if rows_per_shard:
        if form is not _Format.PARQUET:
            raise typer.BadParameter("shards are Parquet: --format parquet", param_hint="--rows-per-shard")
        if output is None or not output.resolve().parent.is_dir() or (output.exists() and not output.is_dir()):
            raise typer.BadParameter(f"{output}: shards need a folder", param_hint="--output")
    else:
        if output is None and form is not _Format.JSONL:
            raise typer.BadParameter(f"{form} is binary and needs a file: --output FILE", param_hint="--format")
        check_output_file(output, "--output")
    if as_json and output is None:
        raise typer.BadParameter("tokens go to standard output: --output FILE", param_hint="--json")
    if resume and (output is None or not (rows_per_shard or form is _Format.JSONL)):
        reason = "only a file of JSON lines or shards can be resumed: --output FILE, or --rows-per-shard N"
        raise typer.BadParameter(reason, param_hint="--resume")


def _write_all(
    client: "Client",
    inputs: "Sequence[Input]",
    in_flight: int,
    unordered: bool,
    options: "TokenizeKeywords",
    writer: "Writer",
    reporter: "Reporter",
) -> None:
    from contextlib import closing

    from foldmint_client.models.responses import Tokens

    structures = ((found.source, found.structure()) for found in inputs)
    results = client.tokenize_many(structures, in_flight=in_flight, ordered=not unordered, **options)
    with closing(results):
        for source, result in results:
            if isinstance(result, Tokens):
                writer.write(source, result)
                reporter.done(len(result))
            else:
                reporter.failure(source, str(result).removeprefix(f"{source}: "), result)


@contextmanager
def _hint(output: Path | None, rows_per_shard: int) -> Iterator[None]:
    """Say, of a run that broke off, how to go on."""
    try:
        yield
    except (typer.Exit, KeyboardInterrupt):
        from foldmint_client.io.resumable_output import unfinished

        if output is not None and (
            any(output.glob("part-*.parquet")) if rows_per_shard else unfinished(output).exists()
        ):
            typer.echo("what is answered is kept: the same command goes on there with --resume", err=True)
        raise
