"""The output of `foldmint tokenize`: its formats, the checks of its options, and the hint to resume it."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import typer

from foldmint_client.cli.common import check_output_file


class Format(StrEnum):
    """What `--format` takes."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    NPZ = "npz"


def check_output(
    form: Format, output: Path | None, rows_per_shard: int, resume: bool, as_json: bool, overwrite: bool
) -> None:
    """Raise BadParameter if the options of the output do not fit together, or it cannot be written there."""
    if rows_per_shard:
        if form is not Format.PARQUET:
            raise typer.BadParameter("shards need --format parquet", param_hint="--rows-per-shard")
        if output is None or not output.resolve().parent.is_dir() or (output.exists() and not output.is_dir()):
            raise typer.BadParameter(f"{output}: shards need a folder to write to", param_hint="--output")
    else:
        if output is None and form is not Format.JSONL:
            raise typer.BadParameter(f"{form} is binary and needs a file: --output FILE", param_hint="--format")
        check_output_file(output, "--output", overwrite=overwrite or resume)
    if as_json and output is None:
        raise typer.BadParameter("tokens go to standard output: --output FILE", param_hint="--json")
    if resume and (output is None or not (rows_per_shard or form is Format.JSONL)):
        reason = "only a file of JSON lines or shards can be resumed: --output FILE, or --rows-per-shard N"
        raise typer.BadParameter(reason, param_hint="--resume")


@contextmanager
def resume_hint(output: Path | None, rows_per_shard: int) -> Iterator[None]:
    """Explain how to resume a run that is interrupted."""
    try:
        yield
    except (typer.Exit, KeyboardInterrupt):
        from foldmint_client.io.resumable_output import unfinished

        if output is not None and (
            any(output.glob("part-*.parquet")) if rows_per_shard else unfinished(output).exists()
        ):
            typer.echo("results so far are kept; to continue, run the same command with --resume", err=True)
        raise
