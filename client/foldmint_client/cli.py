"""The command `foldmint`: tokens of structure files, and what a server serves.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
foldmint info --server HOST:PORT
foldmint health --server HOST:PORT
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from foldmint_client.inputs import Input
    from foldmint_client.output import Writer
    from foldmint_client.progress import Reporter
    from foldmint_client.requests import TokenizeKeywords
    from foldmint_client.results import ModelInfo
    from foldmint_client.sync import Client

app = typer.Typer(
    name="foldmint",
    help="Protein structures to structure tokens, by a Foldmint server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INCOMPLETE = 1  # some input has no tokens
_NO_SERVER = 3  # no server answers, or it refuses or fails the whole call
_BROKEN_PIPE = 141  # what shells report of a program ended by SIGPIPE


class _Format(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    NPZ = "npz"


Server = Annotated[str, typer.Option(metavar="HOST:PORT", envvar="FOLDMINT_SERVER", help="The server.")]
UseTls = Annotated[bool, typer.Option("--tls", help="Use TLS; implied by the other options of TLS.")]
TlsCa = Annotated[
    Path | None, typer.Option(envvar="FOLDMINT_TLS_CA", help="Certificates to trust (PEM), instead of the public ones.")
]
TlsCertificate = Annotated[
    Path | None, typer.Option(envvar="FOLDMINT_TLS_CERTIFICATE", help="The caller's certificate (PEM), for mutual TLS.")
]
TlsKey = Annotated[Path | None, typer.Option(envvar="FOLDMINT_TLS_KEY", help="The caller's key (PEM).")]
TokenFile = Annotated[
    Path | None, typer.Option(envvar="FOLDMINT_TOKEN_FILE", help="File with a bearer token; needs TLS, or localhost.")
]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait for an answer.")]
Attempts = Annotated[int, typer.Option(min=1, max=5, help="Tries in all while no server answers.")]

LOCALHOST = "localhost:50051"


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


@contextmanager
def _connected(
    server: str,
    timeout: float,
    attempts: int,
    token_file: Path | None,
    tls: bool,
    tls_files: tuple[Path | None, Path | None, Path | None],
) -> "Iterator[Client]":
    """A client, and messages and exit codes instead of its errors."""
    from foldmint_client.errors import (
        DeadlineExceeded,
        FoldmintError,
        InvalidOptions,
        MissingExtra,
        Unavailable,
        UnreadableInput,
    )
    from foldmint_client.options import Retry, Tls
    from foldmint_client.sync import Client

    try:
        security = Tls(*tls_files) if tls or any(tls_files) else None
        token = token_file.read_text().strip() if token_file else None
        client = Client(server, timeout=timeout, tls=security, token=token, retry=Retry(attempts=attempts))
    except (InvalidOptions, UnreadableInput) as error:
        raise typer.BadParameter(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{token_file}: {getattr(error, 'strerror', None) or error}") from error
    try:
        with client:
            yield client
    except (InvalidOptions, MissingExtra) as error:
        raise typer.BadParameter(str(error)) from error
    except Unavailable as error:
        _fail(
            f"no server answers at {server}: {str(error).removeprefix('failed to connect to all addresses; ')}",
            _NO_SERVER,
        )
    except DeadlineExceeded as error:
        _fail(f"{server} does not answer: {error}", _NO_SERVER)
    except FoldmintError as error:
        _fail(f"{server}: {error}", _NO_SERVER)


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
    """Protein structures to structure tokens, by a Foldmint server."""


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
    timeout: Timeout = 60.0,
    in_flight: Annotated[int, typer.Option(min=1, help="Structures on their way at once, at most.")] = 64,
    attempts: Attempts = 5,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")] = False,
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
    if output is not None and (output.is_dir() or not output.resolve().parent.is_dir()):
        raise typer.BadParameter(f"{output}: not a file in a folder that exists", param_hint="--output")
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
    }
    try:
        with (
            _connected(server, timeout, attempts, token_file, tls, (tls_ca, tls_certificate, tls_key)) as client,
            opened(OutputFormat(form), output, insertion_codes=insertion_codes) as writer,
            Reporter(len(inputs), shown=bar) as reporter,
        ):
            for path, why in problems:
                reporter.failure(path, why)
            _write_all(client, inputs, in_flight, options, writer, reporter)
    except BrokenPipeError as error:
        # Whoever read has enough. The interpreter must find nothing to flush when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_BROKEN_PIPE) from error
    except OSError as error:
        _fail(f"cannot write {output or 'standard output'}: {error.strerror or error}", _INCOMPLETE)
    if reporter.failed:
        if not quiet:
            typer.echo(f"{reporter.failed} of {len(inputs) + len(problems)} inputs have no tokens", err=True)
        raise typer.Exit(_INCOMPLETE)


def _write_all(
    client: "Client",
    inputs: "Sequence[Input]",
    in_flight: int,
    options: "TokenizeKeywords",
    writer: "Writer",
    reporter: "Reporter",
) -> None:
    from foldmint_client.results import Tokens

    structures = ((found.source, found.structure()) for found in inputs)
    for source, result in client.tokenize_many(structures, in_flight=in_flight, **options):
        if isinstance(result, Tokens):
            writer.write(source, result)
        else:
            reporter.failure(source, str(result).removeprefix(f"{source}: "))
        reporter.done()


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
    with _connected(server, timeout, attempts, token_file, tls, (tls_ca, tls_certificate, tls_key)) as client:
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
            table.add_row(f"{name} {part}".strip().replace("_", " "), str(number))
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

    with _connected(server, timeout, 1, token_file, tls, (tls_ca, tls_certificate, tls_key)) as client:
        status = client.health(service)
    typer.echo(status.value)
    if status is not Health.SERVING:
        raise typer.Exit(1)
