"""The command `foldmint-maintenance`: sets of backbones, training, evaluation and import of models.

foldmint-maintenance --help
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foldmint.command_line import print_version
from foldmint_maintenance.cli import codebooks
from foldmint_maintenance.cli.common import (
    OUTPUT,
    AsJson,
    Device,
    JsonFile,
    StoreOption,
    Threads,
    changes,
    check_device,
    check_outputs,
    console_beside,
    faults,
    json_target,
    make_parents,
    usage_errors,
    use_threads,
    write_json,
)
from foldmint_maintenance.cli.help_text import EPILOGS, Command
from foldmint_maintenance.cli.repair import repair
from foldmint_maintenance.cli.usage import usage

if TYPE_CHECKING:
    from foldmint_maintenance.training.recipe import Recipe

app = typer.Typer(
    name="foldmint-maintenance",
    help="The upkeep of Foldmint's models: backbones, training, evaluation, import; use of codes, repair of codebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, as of the other two commands
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(codebooks.app)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The upkeep of Foldmint's models: backbones, training, evaluation, import; use of codes, repair of codebooks."""


@app.command()
def init(
    store: StoreOption,
    model: Annotated[Literal["foldmint", "geometry"], typer.Option(help="The embedded model to copy.")] = "foldmint",
) -> None:
    """Make an empty store one of an embedded model; nothing happens if it is a store already.

    It may be run by several processes at once, such as all servers of a store before they start.
    """
    from foldmint_tokenizer.store.embedded import initialize
    from foldmint_tokenizer.store.storage import Files

    with changes():
        made = initialize(Files(store), model)
    typer.echo(f"{store}: {f'a copy of the embedded model {model}' if made else 'a store already, left as it is'}")


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="A folder of PDB or mmCIF files, one file, or another set.")],
    out: Annotated[Path, typer.Option(*OUTPUT, help="The Parquet file to write.")],
    min_residues: Annotated[int, typer.Option(min=1, help="Chains with fewer are left out.")] = 30,
    max_residues: Annotated[int | None, typer.Option(min=1, help="Chains with more are left out.")] = None,
) -> None:
    """Turn structure files into a set of backbones in one Parquet file, and report what was left out and why."""
    from foldmint_maintenance.datasets import loading

    with usage_errors():
        config = loading.IngestConfig(min_residues, max_residues)
    with faults():
        done = loading.ingest(
            source, out, config, skip=lambda path, why: typer.echo(f"passed over {path}: {why}", err=True)
        )
    typer.echo(f"{out}: {done.chains} chains, {done.residues} residues")
    if done.unreadable_files:
        typer.echo(f"left out: {done.unreadable_files} files that cannot be read")
    for reason, count in done.skipped.items():
        typer.echo(f"left out: {count} chains with {reason}")


@app.command()
def corpus(
    out: Annotated[Path, typer.Option(*OUTPUT, help="Folder for train.parquet and val.parquet.")],
    package: Annotated[
        Path | None,
        typer.Option(help="Debian's promod3-data, or the structure_db.dat in it; apt-get downloads it by default."),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Whether its SHA-256 must fit.")] = True,
) -> None:
    """Rebuild the sets that the default model was trained and measured on, from a package of Debian."""
    from foldmint_maintenance.datasets import default_corpus

    with faults():
        sets = default_corpus.rebuild(out, package, verify, log=lambda step: typer.echo(step, err=True))
    for done in sets:
        typer.echo(f"{done.path}: {done.chains} chains, {done.residues} residues, SHA-256 {done.sha256}")


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="A set: Parquet, packed corpus, or folder of structure files.")],
    out: Annotated[Path, typer.Option(*OUTPUT, help="Folder of the job; OUTPUT/model in the end.")],
    recipe: Annotated[
        str,
        typer.Option(help="TOML file of stages and settings, or the name of one that is shipped: foldmint, geometry."),
    ] = "foldmint",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A change to the recipe; may be given many times."),
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Only this of the recipe's stages; may be given many times."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a model to begin with.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the recipe's by default.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps.")] = 100,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on from what is in OUTPUT.")] = True,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Train encoder, codebook and decoder by a recipe; may be stopped at any time and goes on when run again.

    Under torchrun its processes share each batch.
    """
    check_device(device)
    edits = [*(settings or ()), *([f"name={json.dumps(name, ensure_ascii=False)}"] if name is not None else ())]
    with faults(), usage_errors():
        steps = _recipe(recipe, edits, stages or ())
    # After the recipe was read, for they import torch.
    from rich.console import Console

    from foldmint_maintenance.cli.progress import TrainingDisplay
    from foldmint_maintenance.distributed.process_group import own_device, process_group
    from foldmint_maintenance.training.job import TrainJob
    from foldmint_maintenance.training.job import train as run_training

    use_threads(threads)
    with usage_errors():
        own = own_device(device)
    with faults(), process_group(own) as group:
        with usage_errors():
            job = TrainJob(data, out, steps, model, checkpoint_every, resume, device=str(own), group=group)
        display = TrainingDisplay(Console(quiet=group.rank > 0), checkpoint_every)
        try:
            run_training(job, display.report, display.log, display.phase)
        finally:
            display.close()
        if group.rank == 0:
            typer.echo(f"the model is in {job.finished}")


def _recipe(name: str, edits: Sequence[str], stages: Sequence[str]) -> "Recipe":
    """The recipe with its changes. Raises BadParameter, which names the option that brought the fault."""
    from foldmint_maintenance.errors import InvalidRecipe
    from foldmint_maintenance.training.recipe import RECIPES, read_recipe, recipe_path

    path = recipe_path(name)
    try:
        return read_recipe(path, edits, stages)
    except FileNotFoundError as error:
        shipped = ", ".join(sorted(one.stem for one in RECIPES.glob("*.toml")))
        problem = f"there is no file {name!r}; the shipped recipes are {shipped}"
        raise typer.BadParameter(problem, param_hint="'--recipe'") from error
    except InvalidRecipe as error:
        for option, some, kept in (("--recipe", (), ()), ("--set", edits, ()), ("--stage", edits, stages)):
            try:
                read_recipe(path, some, kept)
            except InvalidRecipe as found:
                raise typer.BadParameter(str(found), param_hint=f"'{option}'") from error
        raise


@app.command()
def curves(
    log: Annotated[Path, typer.Argument(help="The log.csv of a stage, or one compressed by gzip.")],
    out: Annotated[Path, typer.Option(*OUTPUT, help="The SVG file to write.")],
) -> None:
    """Draw the figures of a training by step."""
    from foldmint_maintenance.training import curves as module

    with faults():
        module.draw(module.read_log(log), out)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="A set that the model was not trained on.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the model; the embedded model by default.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="A set to measure the codes' windows on, rather than take the model's own.")
    ] = None,
    as_json: AsJson = False,
    json_file: JsonFile = None,
    page: Annotated[Path | None, typer.Option(help="Write figures and plots here, as one HTML file.")] = None,
    chains: Annotated[
        int | None, typer.Option(min=1, help="Measure so many chains of the set; all by default.")
    ] = None,
    max_decode_residues: Annotated[
        int, typer.Option(min=1, help="Chains with more are encoded, but not decoded.")
    ] = 1024,
    seed: Annotated[int, typer.Option(help="Of the chains drawn from set and reference.")] = 0,
    threads: Threads = None,
) -> None:
    """Measure how a model's codes are used on a set, how much of the local shape they keep, and what is decoded."""
    json_file = json_target(as_json, json_file)
    check_outputs(json_file=json_file, page=page)
    from rich.console import Console

    from foldmint_maintenance.cli.progress import counting
    from foldmint_maintenance.datasets.loading import read_set
    from foldmint_maintenance.evaluation import evaluate as evaluation
    from foldmint_maintenance.evaluation.tables import assignment_table, evaluation_table, reconstruction_table
    from foldmint_tokenizer.store.model_store import load_model

    with usage_errors():
        config = evaluation.EvaluationConfig(seed=seed, chains=chains, max_decode_residues=max_decode_residues)
    use_threads(threads)
    unread: list[str] = []

    def skip(path: Path, why: str) -> None:
        unread.append(f"passed over {path}: {why}")

    with faults():
        make_parents(json_file, page)
        loaded = load_model(model)
        counted = ["residues encoded:"] if loaded.decoder is None else ["residues encoded:", "residues decoded:"]
        with counting(Console(stderr=True), *counted) as watches:
            result = evaluation.evaluate(
                loaded,
                read_set(data, skip),
                None if reference is None else read_set(reference, skip),
                config,
                *watches,
            )
        for line in unread:
            typer.echo(line, err=True)
        write_json(json_file, result.as_json())
        if page is not None:
            from foldmint_maintenance.evaluation import report

            page.write_text(report.page(result), encoding="utf-8")
    console = console_beside(json_file)
    console.print(evaluation_table(result))
    if result.reconstruction is not None:
        console.print(reconstruction_table(result.reconstruction))
    if result.assignments is not None:
        console.print(assignment_table(result.assignments))
    for note in result.notes:
        console.print(f"- {note}")


@app.command("import-esm3")
def import_esm3(
    encoder: Annotated[Path, typer.Option(help="The published esm3_structure_encoder_v0.pth.")],
    out: Annotated[Path, typer.Option(*OUTPUT, help="Folder of the model to write.")],
    decoder: Annotated[
        Path | None, typer.Option(help="The published esm3_structure_decoder_v0.pth; without it, tokens are one way.")
    ] = None,
    decoder_heads: Annotated[
        int | None, typer.Option(min=1, help="Of the decoder's attention; a 64th of its width by default.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "esm3-structure-encoder-v0",
    reading: Annotated[
        Literal["all", "esm"] | None,
        typer.Option(
            help="Which residues of a file count unless a request says otherwise: all of proteins, or those that ESM's "
            "own reader takes. All, by default."
        ),
    ] = None,
) -> None:
    """Convert ESM3's structure encoder and decoder, which you bring, to a model; their license goes with it."""
    from foldmint_maintenance.store import import_esm3 as esm3

    if decoder is None and decoder_heads is not None:
        raise typer.BadParameter("--decoder-heads needs --decoder")
    with faults():
        model = esm3.import_esm3(encoder, out, name, decoder_pth=decoder, decoder_heads=decoder_heads, reading=reading)
    sizes = model.config
    typer.echo(
        f"{out}: {model.name}, width {sizes.width}, {sizes.heads} heads, {sizes.layers} layers, "
        f"{sizes.codes} codes of {sizes.out} dimensions"
    )
    if model.decoder is not None:
        own = model.decoder.config
        typer.echo(f"its decoder: width {own.width}, {own.heads} heads, {own.layers} layers")


app.command()(repair)
app.command()(usage)

for _command in (*app.registered_commands, *codebooks.app.registered_commands):
    _command.cls = Command
    _command.epilog = EPILOGS.get(_command.callback.__name__) if _command.callback is not None else None
