"""The command `foldmint tokenize`: tokens of structure files.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
"""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foldmint_client.cli.common import (
    LOCALHOST,
    AsJson,
    Attempts,
    Failures,
    Quiet,
    Server,
    Timeout,
    check_output_file,
    connected,
    finish,
    output_errors,
)
from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials

if TYPE_CHECKING:
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.client import Client
    from foldmint_client.io.discovery import Input
    from foldmint_client.io.token_writers import Writer
    from foldmint_client.models.left_out import Tally
    from foldmint_client.models.tokenize_request import TokenizeKeywords


class _Assignment(StrEnum):
    INDEPENDENT = "independent"
    ANCHORED = "anchored"
    TRACKING = "tracking"


class _Format(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    NPZ = "npz"


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
    server: Server = LOCALHOST,
    form: Annotated[_Format, typer.Option("--format", help="How tokens are written.")] = _Format.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write, or with --rows-per-shard the folder; standard output by default.",
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")] = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Write answers as they come, not in the order of the input.")
    ] = False,
    whole: Annotated[bool, typer.Option("--complex", help="Look for neighbors across chains.")] = False,
    special_tokens: Annotated[bool, typer.Option("--special-tokens", help="Enclose tokens in BOS and EOS.")] = False,
    distances: Annotated[bool, typer.Option("--distances", help="Add each residue's distance from its code.")] = False,
    assignment: Annotated[
        _Assignment,
        typer.Option(
            help="How codes are chosen: independent, the nearest to a residue's vector; tracking, those that rebuild "
            "the whole chain best; anchored, the same between anchors, so that a token depends on its stretch alone."
        ),
    ] = _Assignment.INDEPENDENT,
    first_frames: Annotated[
        bool, typer.Option("--first-frames", help="Add the frame that each stretch without a gap begins with.")
    ] = False,
    insertion_codes: Annotated[bool, typer.Option("--insertion-codes", help="Add insertion codes to JSON.")] = False,
    chain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this chain, as the file's author names it; may be repeated."),
    ] = None,
    model_number: Annotated[int, typer.Option(min=0, help="Model of the file to read; 0 is the first.")] = 0,
    reading: Annotated[
        Literal["all", "esm"] | None,
        typer.Option(
            help="Which residues count: all of proteins, or those that ESM's own reader takes. The model's default "
            "by default."
        ),
    ] = None,
    min_plddt: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="X",
            help="Residues whose CA has a lower B-factor (in predicted models the pLDDT) count as without a frame.",
        ),
    ] = None,
    assembly: Annotated[
        str, typer.Option(metavar="ID", help="Build this biological assembly, as the file names it.")
    ] = "",
    renumber: Annotated[
        bool, typer.Option("--renumber", help="Number residues 1, 2, 3, ... in each chain, whatever the file says.")
    ] = False,
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
    credentials: Credentials = NO_CREDENTIALS,
    quiet: Quiet = False,
) -> None:
    """Print the tokens of structure files, chain by chain, in the order of the input.

    A bad file does not stop the others, nor does an archive that is damaged or cut off: it is one failure, after the
    members that can be read. Members are called ARCHIVE!MEMBER, chains of a file PATH:A,B.

    A file that is written appears under its name when all is done; until then JSON lines are in FILE.part, and shards
    are complete one by one: with --resume, an interrupted run goes on there, and a finished one asks again for what
    failed. A path named twice counts once then.

    What a file holds and the tokens do not cover stands as left_out beside the tokens of its chain; what is of no chain
    with tokens, and warnings, beside those of the first. A line at the end tells if any of a protein was left out.

    --json prints a summary: inputs, tokenized, earlier (not asked again), failed, residues, seconds, failures by kind,
    left_out by kind, and warnings, the number of structures that have some.
    """
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.io.discovery import STDIN, find_inputs
    from foldmint_client.io.resumable_output import output as opened
    from foldmint_client.io.token_writers import OutputFormat
    from foldmint_client.models.left_out import Tally

    if output == Path(STDIN):
        output = None
    _check_output(form, output, rows_per_shard, resume, as_json, overwrite)
    check_output_file(failures, "--failures")
    if paths.count(STDIN) > 1:
        raise typer.BadParameter("standard input can be read once only", param_hint="PATH...")
    started = time.monotonic()
    problems: list[tuple[str, str]] = []
    notes: list[str] = []
    inputs = [*find_inputs(paths, lambda path, why: problems.append((path, why)), notes.append)]
    asked = _Asked(inputs)
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
        _hint(output, rows_per_shard),
        output_errors(output),
        connected(server, timeout, attempts, credentials) as client,
        opened(
            OutputFormat(form),
            output,
            rows_per_shard=rows_per_shard,
            resumed=asked if resume else None,
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
            asked.leave_out(resume_state.sources)
        bar = not quiet and not (output is None and sys.stdout.isatty())
        with Reporter(asked.number, shown=bar, failures=failures, quiet=quiet) as reporter:
            for note in notes:
                reporter.note(note)
            for path, why in problems:
                reporter.failure(path, why, counted=False)
            _write_all(client, asked, in_flight, unordered, options, writer, reporter, tally)
    for line in () if quiet else tally.lines():
        typer.echo(line, err=True)
    total = asked.left_out + reporter.succeeded + reporter.failed
    finish(
        reporter,
        f"{reporter.failed} of {total} inputs have no tokens",
        {
            "inputs": total,
            "tokenized": reporter.succeeded,
            "earlier": asked.left_out,
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


class _Asked:
    """The inputs, without what is done already. number: of their structures; None while archives are not read."""

    def __init__(self, inputs: "Sequence[Input]") -> None:
        self.inputs = inputs
        self.left_out = 0
        self._done: set[str] | None = None

    def __contains__(self, source: object) -> bool:
        return isinstance(source, str) and any(found.may_hold(source) for found in self.inputs)

    def leave_out(self, done: Collection[str]) -> None:
        """Leave out what is done, and whatever comes a second time."""
        self._done = set(done)

    @property
    def number(self) -> int | None:
        """Of structures that are to come; None if there are archives, which are not read yet."""
        if any(found.has_several for found in self.inputs):
            return None
        if self._done is None:
            return len(self.inputs)
        return len({found.source for found in self.inputs} - self._done)

    def wants(self, source: str) -> bool:
        """Whether a structure is to be tokenized; counts it if it is not."""
        if self._done is None:
            return True
        if source in self._done:
            self.left_out += 1
            return False
        self._done.add(source)
        return True


def _check_output(
    form: _Format, output: Path | None, rows_per_shard: int, resume: bool, as_json: bool, overwrite: bool
) -> None:
    if rows_per_shard:
        if form is not _Format.PARQUET:
            raise typer.BadParameter("shards are Parquet: --format parquet", param_hint="--rows-per-shard")
        if output is None or not output.resolve().parent.is_dir() or (output.exists() and not output.is_dir()):
            raise typer.BadParameter(f"{output}: shards need a folder", param_hint="--output")
    else:
        if output is None and form is not _Format.JSONL:
            raise typer.BadParameter(f"{form} is binary and needs a file: --output FILE", param_hint="--format")
        check_output_file(output, "--output", overwrite=overwrite or resume)
    if as_json and output is None:
        raise typer.BadParameter("tokens go to standard output: --output FILE", param_hint="--json")
    if resume and (output is None or not (rows_per_shard or form is _Format.JSONL)):
        reason = "only a file of JSON lines or shards can be resumed: --output FILE, or --rows-per-shard N"
        raise typer.BadParameter(reason, param_hint="--resume")


def _write_all(
    client: "Client",
    asked: _Asked,
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

    with InputReader(asked.wants, reporter.failure, reporter.note) as reader:
        structures = reader.read(asked.inputs)
        results = client.tokenize_many(structures, in_flight=in_flight, ordered=not unordered, **options)
        with closing(results):
            for source, result in results:
                if isinstance(result, Tokens):
                    writer.write(source, result)
                    tally.add(source, result.left_out, result.warnings)
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
