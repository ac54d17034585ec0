"""The commands `foldmint-maintenance codebooks …`.

foldmint-maintenance codebooks --help
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from foldmint_maintenance.cli.activation import activate, canary, rollback
from foldmint_maintenance.cli.common import (
    AsJson,
    JsonFile,
    StoreOption,
    changes,
    console_beside,
    faults,
    json_target,
    say,
    usage_errors,
    write_json,
)

app = typer.Typer(
    name="codebooks",
    help="The versions of a store's codebook: which there are, and which its servers serve.",
    no_args_is_help=True,
)

Threshold = Annotated[float, typer.Option(min=0, help="A code whose N, its hits a step, is below this is dead.")]


@app.command("list")
def list_versions(
    store: StoreOption, as_json: AsJson = False, json_file: JsonFile = None, dead_threshold: Threshold = 1e-5
) -> None:
    """List all versions, with what they were made from, and how many of their codes are dead."""
    from rich.table import Table

    from foldmint_maintenance.store.listing import listed
    from foldmint_tokenizer.store.model_store import Store

    json_file = json_target(as_json, json_file)
    with faults():
        found = listed(Store(store), dead_threshold)
        write_json(json_file, [vars(one) for one in found])
    table = Table("version", "parent", "created", "made by", "dead", "digest", "state", box=None)
    for one in found:
        state = "incomplete" if not one.complete else "damaged" if one.problem else "in use" if one.active else ""
        if one.canary is not None:
            state = f"{state} canary, {one.canary:.4g} of the servers".lstrip()
        dead = "" if one.dead is None else str(one.dead)
        made = [(one.created or "")[:16], (one.made_by or "")[:12], dead, (one.digest or "")[:12]]
        table.add_row(one.version, one.parent, *made, state)
    console_beside(json_file).print(table)
    for one in found:
        if one.problem is not None:
            typer.echo(f"{one.version}: {one.problem}", err=True)


@app.command()
def show(
    store: StoreOption,
    version: Annotated[str | None, typer.Argument(help="The active one by default.")] = None,
    as_json: AsJson = False,
    json_file: JsonFile = None,
    dead_threshold: Threshold = 1e-5,
) -> None:
    """Show what a version is, how its codes are used, and what its manifest says."""
    from foldmint_maintenance.store.listing import shown
    from foldmint_tokenizer.store.model_store import Store

    json_file = json_target(as_json, json_file)
    with faults():
        value = shown(Store(store), version, dead_threshold)
        write_json(json_file, value)
    counts = value["N"]
    spread = ", ".join(f"{key} {counts[key]:.4g}" for key in ("mean", "std", "min", "max"))
    quartiles = ", ".join(f"{one:.4g}" for one in counts["quartiles"])
    lines = [
        f"codebook {value['version']}{', in use' if value['active'] else ''}, from {value['parent'] or 'nothing'}",
        f"SHA-256 {value['digest']}",
        f"of the encoder {value['encoder_digest']}",
        f"{value['codes']} codes of {value['dimensions']} dimensions, {value['dead']} dead below {dead_threshold:g}",
        f"N: {spread}, quartiles {quartiles}",
        f"windows {'measured' if value['windows'] else 'not measured'}; {value['decoder_rows']} decoder rows",
        json.dumps(value["manifest"].get("about"), indent=2),
    ]
    for line in lines:
        say(line, json_file)


@app.command()
def verify(
    store: StoreOption,
    versions: Annotated[list[str] | None, typer.Argument(metavar="[VERSION]...", help="All by default.")] = None,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Read all of a store and check it: digests, shapes, values, encoder, decoder, rows, parents, ACTIVE, CANARY.

    Ends with 1 if anything is wrong, and says what. Versions that killed runs left unfinished are harmless.
    """
    from foldmint_maintenance.errors import StoreDamaged
    from foldmint_maintenance.store.listing import verified
    from foldmint_tokenizer.store.model_store import Store

    json_file = json_target(as_json, json_file)
    with faults():
        done = verified(Store(store), versions or ())
        write_json(json_file, {**vars(done), "passed": not done.problems})
        for note in done.notes:
            say(note, json_file)
        for problem in done.problems:
            typer.echo(f"bad: {problem}", err=True)
        if done.problems:
            raise StoreDamaged(f"{store} does not verify: {len(done.problems)} of {len(done.checked)} parts are bad")
    say(f"{store} verifies: {', '.join(done.checked)}", json_file)


@app.command()
def prune(
    store: StoreOption,
    keep: Annotated[int, typer.Option(help="How many of the newest versions stay, at least 1.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Remove unfinished versions even if they are not a day old.")
    ] = False,
) -> None:
    """Remove old versions, and what killed runs left more than a day ago.

    The active version, its parent, the canary, and the one that a rollback goes back to are never removed.
    """
    from foldmint_maintenance.store.edit import pruned
    from foldmint_tokenizer.store.model_store import Store

    with changes():
        opened = Store(store)
        with usage_errors():
            done = pruned(opened, keep, incomplete=incomplete, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for what, names in (("codebook", done.removed), ("unfinished codebook", done.incomplete), ("file", done.parts)):
        for name in names:
            typer.echo(f"{verb} {what} {name}")
    for version, why in done.kept.items():
        typer.echo(f"kept codebook {version}: {why}")
    if not (done.removed or done.incomplete or done.parts):
        typer.echo("nothing to remove")


@app.command("import")
def import_version(
    store: StoreOption,
    file: Annotated[
        Path, typer.Option("--from", metavar="FILE", help="Safetensors with embeddings, N and z_avg of all codes.")
    ],
    activate: Annotated[bool, typer.Option("--activate/--no-activate", help="Whether it is then in use.")] = True,
) -> None:
    """Make a codebook of a file into a new version, checked, and the one in use."""
    from foldmint_maintenance.store.edit import imported
    from foldmint_tokenizer.store.model_store import Store

    with changes():
        made = imported(Store(store), file, activate=activate)
    rows = 0 if made.decoder_rows is None else len(made.decoder_rows.codes)
    typer.echo(f"codebook {made.version}, from {made.manifest['parent']}, {'in use' if activate else 'not in use'}")
    typer.echo(f"SHA-256 {made.digest}, {rows} decoder rows")


app.command()(activate)
app.command()(rollback)
app.command()(canary)
