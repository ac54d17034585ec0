"""The command `foldmint detokenize`: structures of tokens.

foldmint tokenize PATH... | foldmint detokenize --format pdb --output FOLDER -
"""

import sys
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from foldmint_client.cli.common import (
    LOCALHOST,
    NO_SERVER,
    OUTPUT,
    STDIN,
    STDOUT,
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
    fail,
    finish,
    output_errors,
)
from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials
from foldmint_client.models.left_out import counted

if TYPE_CHECKING:
    from foldmint_client.client import Client
    from foldmint_client.io.structure_writers import Folder, StructureOutput
    from foldmint_client.io.token_readers import Found
    from foldmint_client.models.decoded import Decoded
    from foldmint_client.models.detokenize_request import WrittenFormat


STRUCTURE = "Structure"  # a section of the help


class _Format(StrEnum):
    PDB = "pdb"
    MMCIF = "mmcif"
    NPZ = "npz"
    JSONL = "jsonl"


_FILES: "dict[_Format, WrittenFormat]" = {_Format.PDB: "pdb", _Format.MMCIF: "mmcif"}


class _Job(NamedTuple):
    """A structure to decode, and its own file if it has one."""

    found: "Found"
    path: Path | None = None


class _Gaps:
    """Counts residues without coordinates, and structures of nothing else."""

    def __init__(self) -> None:
        self.residues = self._structures = self._empty = 0

    def add(self, decoded: "Decoded") -> None:
        gaps = sum(chain.gaps for chain in decoded.chains)
        self.residues += gaps
        self._structures += gaps > 0
        self._empty += gaps == len(decoded)

    def line(self) -> str:
        verb = "has" if self._empty == 1 else "have"
        empty = f", {self._empty} of which {verb} nothing else" if self._empty else ""
        residues, structures = counted(self.residues, "residue"), counted(self._structures, "structure")
        return f"gaps for {residues} without a frame, in {structures}{empty}; --fill decodes them anyway"


@with_credentials
def detokenize(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Files that `foldmint tokenize` wrote, or of token ids, one structure a line; - for standard input.",
        ),
    ],
    form: Annotated[
        _Format, typer.Option("--format", help="Format of the output.", rich_help_panel=OUTPUT)
    ] = _Format.PDB,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--out",
            help="For pdb and mmcif, a folder with a file for each structure, or a .pdb or .cif file for a single one; "
            "otherwise the file to write. Standard output by default.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=OUTPUT)
    ] = False,
    failures: Failures = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    each_chain: Annotated[
        bool,
        typer.Option("--each-chain", help="Decode each chain as a structure of its own.", rich_help_panel=STRUCTURE),
    ] = False,
    pae: Annotated[
        bool,
        typer.Option(
            "--pae",
            help="Add predicted aligned errors; with pdb and mmcif, in a .pae.npy file beside each structure.",
            rich_help_panel=STRUCTURE,
        ),
    ] = False,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill",
            help="Decode residues without a frame too, whose tokens carry no information; gaps by default.",
            rich_help_panel=STRUCTURE,
        ),
    ] = False,
    server: Server = LOCALHOST,
    timeout: Timeout = 300.0,
    in_flight: InFlight = 2,
    attempts: Attempts = 5,
    balance: Balance = "round_robin",
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Write the structures that tokens encode, in the order of the input; the chains of a source are one structure.

    B-factors of the files are pLDDT, from 0 to 100. Residues of unknown type are named UNK. Residues without a frame in
    the input are gaps: no atoms in files, null in JSON and NaN in npz. A line at the end counts them.

    --json prints a summary: inputs, detokenized, failed, residues, gaps (residues without coordinates), seconds, and
    failures by kind.
    """
    if output == STDOUT:
        output = None
    check_output_file(failures, "--failures")
    if form is _Format.NPZ and output is None:
        raise typer.BadParameter("npz is binary and needs a file: --output FILE", param_hint="--format")
    if pae and form in _FILES and output is None:
        raise typer.BadParameter("needs files to write to: --output FILE or FOLDER", param_hint="--pae")
    if as_json and output is None:
        raise typer.BadParameter("structures go to standard output; name --output FILE or FOLDER", param_hint="--json")
    if paths.count(STDIN) > 1:
        raise typer.BadParameter("standard input can be read once only", param_hint="PATH")
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.errors import FoldmintError
    from foldmint_client.io.structure_writers import FILE_SUFFIX, StructureOutput, opened, write_file
    from foldmint_client.transport.parallel_calls import map_in_order

    kind = StructureOutput(form)
    folder = _folder(kind, output, overwrite)
    if folder is None:
        check_output_file(output, "--output", overwrite=overwrite)
    started = time.monotonic()
    alone = kind in FILE_SUFFIX and folder is None  # one structure has a file of its own
    jobs = _jobs(paths, each_chain, folder, output if alone else None)
    bar = not quiet and not (output is None and sys.stdout.isatty())
    with (
        output_errors(output),
        connected(server, timeout, attempts, credentials, balance) as client,
        opened(kind, None if kind in FILE_SUFFIX else output) as writer,
        Reporter(None, shown=bar, verb="detokenizing", unit="structures", failures=failures, quiet=quiet) as reporter,
    ):
        if alone:
            jobs = _one(jobs)
        served = client.model()
        if served.decoder is None:
            fail(f"{server}: its model has no decoder", NO_SERVER)
        total, gaps = 0, _Gaps()
        # Token ids that come without a version are all decoded with one, whatever becomes active meanwhile.
        version = served.codebook_version
        calls = ((job, partial(_call, client, job.found, version, _FILES.get(form), pae, fill)) for job in jobs)
        for job, result in map_in_order(calls, in_flight):
            total += 1
            if isinstance(result, FoldmintError):
                reporter.failure(job.found.name, str(result).removeprefix(f"{job.found.name}: "), result)
                continue
            if job.path is not None:
                write_file(job.path, result)
            else:
                writer.write(job.found, result)
            reporter.done(len(result))
            gaps.add(result)
    if gaps.residues and not quiet:
        typer.echo(gaps.line(), err=True)
    finish(
        reporter,
        f"{reporter.failed} of {total} inputs have no structure",
        {
            "inputs": total,
            "detokenized": reporter.succeeded,
            "failed": reporter.failed,
            "residues": reporter.residues,
            "gaps": gaps.residues,
            "seconds": round(time.monotonic() - started, 3),
            "failures": reporter.counts(),
            "output": str(output),
        }
        if as_json
        else None,
        quiet=quiet,
    )


def _folder(kind: "StructureOutput", out: Path | None, overwrite: bool) -> "Folder | None":
    """The folder that files go to; None if there is one output for all."""
    from foldmint_client.io.structure_writers import FILE_SUFFIX, Folder
    from foldmint_client.io.suffixes import TEXTS

    if kind not in FILE_SUFFIX or out is None or (out.suffix.lower() in TEXTS and not out.is_dir()):
        return None
    try:
        return Folder(out, FILE_SUFFIX[kind], overwrite=overwrite)
    except OSError as error:
        raise typer.BadParameter(f"{out}: {error.strerror or error}", param_hint="--output") from error


def _jobs(paths: Sequence[str], each_chain: bool, folder: "Folder | None", path: Path | None) -> Iterator[_Job]:
    from foldmint_client.errors import FoldmintError, InvalidOptions
    from foldmint_client.io.token_readers import read

    for found in chain.from_iterable(read(source, each_chain=each_chain) for source in paths):
        if folder is None or isinstance(found.tokens, FoldmintError):
            yield _Job(found, path)
            continue
        try:
            yield _Job(found, folder.claim(found))
        except InvalidOptions as error:
            yield _Job(found._replace(tokens=error))


def _one(jobs: Iterator[_Job]) -> Iterator[_Job]:
    """The only structure. Raises BadParameter if there are more."""
    first = list(islice(jobs, 2))
    if len(first) > 1:
        raise typer.BadParameter("several structures need a folder: --output FOLDER", param_hint="--output")
    return iter(first)


def _call(
    client: "Client", found: "Found", version: str, form: "WrittenFormat | None", pae: bool, fill: bool
) -> "Decoded":
    from foldmint_client.errors import FoldmintError

    if isinstance(found.tokens, FoldmintError):
        raise found.tokens
    return client.detokenize(
        found.tokens,
        format=form,
        pae=pae,
        fill=fill,
        model=found.model,
        codebook_version=found.codebook_version or version,
    )
