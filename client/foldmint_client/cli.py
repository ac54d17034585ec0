"""The command `foldmint`: tokens of structure files, structures of tokens, and what a server serves.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
foldmint detokenize --server HOST:PORT --format pdb --out FOLDER PATH...
foldmint info --server HOST:PORT
foldmint health --server HOST:PORT
"""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foldmint_client.cli_common import (
    INCOMPLETE,
    LOCALHOST,
    Attempts,
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
    output_errors,
)
from foldmint_client.cli_detokenize import detokenize

if TYPE_CHECKING:
    from foldmint_client.inputs import Input
    from foldmint_client.output import Writer
    from foldmint_client.progress import Reporter
    from foldmint_client.requests import TokenizeKeywords
    from foldmint_client.results import ModelInfo
    from foldmint_client.sync import Client

app = typer.Typer(
    name="foldmint",
    help="Protein structures to structure tokens and back, by a Foldmint server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _Format(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    NPZ = "npz"


def _version(wanted: bool) -> None:
    if wanted:
        from foldmint_client.options import installed_version

        typer.echo(f"foldmint {installed_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Protein structures to structure tokens and back, by a Foldmint server."""


@app.command()
def tokenize(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Structure files, folders of them, patterns, or - for standard input."),
    ],
    server: Server = LOCALHOST,
    form: Annotated[_Format, typer.Option("--format", help="How tokens are written.")] = _Format.JSONL,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; standard output unless told.")
    ] = None,
    whole: Annotated[bool, typer.Option("--complex", help="Look for neighbors across chains.")] = False,
    special_tokens: Annotated[bool, typer.Option("--special-tokens", help="Enclose tokens in BOS and EOS.")] = False,
    distances: Annotated[bool, typer.Option("--distances", help="Add each residue's distance from its code.")] = False,
    insertion_codes: Annotated[bool, typer.Option("--insertion-codes", help="Add insertion codes to JSON.")] = False,
    chain: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this chain; may be repeated.")] = None,
    model_number: Annotated[int, typer.Option(min=0, help="Model of the file to read; 0 is the first.")] = 0,
    codebook_version: Annotated[
        str | None,
        typer.Option(
            metavar="V",
            help="Of the codebook to use, for all structures; ACTIVE follows the server from one to the next. Unless "
            "told, the one that is active at the start.",
        ),
    ] = None,
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

    Exit codes: 0 all done; 1 some input has no tokens, or the output cannot be written; 2 wrong usage; 3 no server
    answers, or it refused or broke off.
    """
    from foldmint_client.inputs import STDIN, find
    from foldmint_client.output import OutputFormat, opened
    from foldmint_client.progress import Reporter

    if output == Path(STDIN):
        output = None
    if output is None and form is not _Format.JSONL:
        raise typer.BadParameter(f"{form} is binary and needs a file: --output FILE", param_hint="--format")
    check_output_file(output, "--output")
    if paths.count(STDIN) > 1:
        raise typer.BadParameter("standard input can be read once only", param_hint="PATH...")
    problems: list[tuple[str, str]] = []
    inputs = [*find(paths, lambda path, why: problems.append((path, why)))]
    bar = not quiet and not (output is None and sys.stdout.isatty())
    options: TokenizeKeywords = {
        "model_number": model_number,
        "chains": chain or (),
        "complex": whole,
        "special_tokens": special_tokens,
        "distances": distances,
        "codebook_version": codebook_version,
    }
    with (
        output_errors(output),
        connected(server, timeout, attempts, token_file, tls, (tls_ca, tls_certificate, tls_key)) as client,
        opened(OutputFormat(form), output, insertion_codes=insertion_codes) as writer,
        Reporter(len(inputs), shown=bar) as reporter,
    ):
        for path, why in problems:
            reporter.failure(path, why)
        _write_all(client, inputs, in_flight, options, writer, reporter)
    if reporter.failed:
        if not quiet:
            typer.echo(f"{reporter.failed} of {len(inputs) + len(problems)} inputs have no tokens", err=True)
        raise typer.Exit(INCOMPLETE)


def _write_all(
    client: "Client",
    inputs: "Sequence[Input]",
    in_flight: int,
    options: "TokenizeKeywords",
    writer: "Writer",
    reporter: "Reporter",
) -> None:
    from contextlib import closing

    from foldmint_client.results import Tokens

    structures = ((found.source, found.structure()) for found in inputs)
    with closing(client.tokenize_many(structures, in_flight=in_flight, **options)) as results:
        for source, result in results:
            if isinstance(result, Tokens):
                writer.write(source, result)
            else:
                reporter.failure(source, str(result).removeprefix(f"{source}: "))
            reporter.done()


app.command()(detokenize)


@app.command()
def info(
    server: Server = LOCALHOST,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    timeout: Timeout = 10.0,
    attempts: Attempts = 5,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
) -> None:
    """Print what a server serves: model, codebook, vocabulary and limits."""
    with connected(server, timeout, attempts, token_file, tls, (tls_ca, tls_certificate, tls_key)) as client:
        model = client.model()
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(model), indent=2))
    else:
        _print_table(model)


def _print_table(model: "ModelInfo") -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in asdict(model).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, number in parts:
            table.add_row(f"{name} {part}".strip().replace("_", " "), "none" if number is None else str(number))
    Console(highlight=False, markup=False).print(table)


@app.command()
def health(
    server: Server = LOCALHOST,
    service: Annotated[str, typer.Option(help="A service of the server, foldmint.v1.TokenizerService.")] = "",
    timeout: Timeout = 5.0,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
) -> None:
    """Print the server's health; exit with 0 only if it is SERVING, with 1 otherwise, 3 if no server answers."""
    from foldmint_client.results import Health

    with connected(server, timeout, 1, token_file, tls, (tls_ca, tls_certificate, tls_key)) as client:
        status = client.health(service)
    typer.echo(status.value)
    if status is not Health.SERVING:
        raise typer.Exit(1)
