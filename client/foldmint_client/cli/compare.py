"""The command `foldmint compare`: the tokens of two structures, aligned.

foldmint compare --server HOST:PORT A.cif B.cif
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foldmint_client.cli.common import (
    INCOMPLETE,
    LOCALHOST,
    AsJson,
    Attempts,
    Server,
    Timeout,
    connected,
    fail,
    output_errors,
)
from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials

if TYPE_CHECKING:
    from rich.console import Console

    from foldmint_client.analysis.comparison import ChainComparison
    from foldmint_client.client import Client
    from foldmint_client.models.responses import Tokens

COMPARISON = "Comparison"  # a section of the help
_STYLES = ("red", "yellow", "green", "dim", "dim")  # of each Kind
_MARKS = " .|? "


@with_credentials
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A structure file, or one that `foldmint tokenize` wrote.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    chain_a: Annotated[
        str | None, typer.Option(metavar="NAME", help="The chain of A.", rich_help_panel=COMPARISON)
    ] = None,
    chain_b: Annotated[
        str | None, typer.Option(metavar="NAME", help="The chain of B.", rich_help_panel=COMPARISON)
    ] = None,
    codebook: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The codebook.safetensors of a store, for distances between codes: which are near.",
            rich_help_panel=COMPARISON,
        ),
    ] = None,
    near: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Two codes are near if their distance is within this share of all pairs.",
            rich_help_panel=COMPARISON,
        ),
    ] = 0.01,
    as_json: AsJson = False,
    server: Server = LOCALHOST,
    timeout: Timeout = 60.0,
    attempts: Attempts = 5,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Align the tokens of two structures, and count how many are equal.

    Chains of the same name are compared; if there are none, the first with the first, and so on. The alignment is
    global (Needleman-Wunsch): equal tokens score 2, near ones 1, others -1, and each gap position -1. Residues without
    a frame are aligned, but not counted. Marks between the lines: | equal, . near, ? without a frame.

    The server tokenizes structures; two files of tokens need no server.
    """
    from foldmint_client.analysis import code_distances
    from foldmint_client.analysis.comparison import chain_pairs, compare_chains
    from foldmint_client.errors import UnreadableInput

    try:
        vectors = None if codebook is None else code_distances.read(codebook)
    except UnreadableInput as error:
        raise typer.BadParameter(str(error), param_hint="--codebook") from error
    threshold = 0.0 if vectors is None else vectors.near(near)
    with (
        output_errors(None),
        connected(server, timeout, attempts, credentials) as client,
    ):
        sides = _sides(client, (first, second))
        chosen = [
            _only(tokens, name, path)
            for tokens, name, path in zip(sides, (chain_a, chain_b), (first, second), strict=True)
        ]
        pairs = (
            [(chosen[0].chains[0], chosen[1].chains[0])]
            if chain_a is not None and chain_b is not None
            else [*chain_pairs(*chosen)]
        )
        found = [compare_chains(one, other, vectors, threshold) for one, other in pairs]
        if as_json:
            _print_json((first, second), sides, found, None if vectors is None else threshold)
        else:
            _print((first, second), sides, found, near=vectors is not None)
    if not any(pair.compared for pair in found):
        fail("there are no tokens to compare", INCOMPLETE)


def _sides(client: "Client", paths: tuple[str, str]) -> "tuple[Tokens, Tokens]":
    """The tokens of both; a structure beside a file of tokens is tokenized with the codebook of those."""
    from foldmint_client.errors import InvalidOptions, InvalidStructure, UnreadableInput
    from foldmint_client.io.suffixes import is_structure

    try:
        read = [None if is_structure(path) else _read(path) for path in paths]
        version = next((tokens.codebook_version for tokens in read if tokens is not None), "") or None
        sides = []
        for path, tokens in zip(paths, read, strict=True):
            if tokens is None:
                tokens = client.tokenize(Path(path), codebook_version=version)
                version = version or tokens.codebook_version
            sides.append(tokens)
    except (UnreadableInput, InvalidStructure) as error:
        fail(str(error), INCOMPLETE)
    models = {tokens.model for tokens in sides if tokens.model}
    if len(models) > 1:
        raise InvalidOptions(f"tokens of different models cannot be compared: {', '.join(sorted(models))}")
    return sides[0], sides[1]


def _read(path: str) -> "Tokens":
    import numpy as np

    from foldmint_client.errors import FoldmintError, UnreadableInput
    from foldmint_client.io.token_readers import read
    from foldmint_client.models.responses import ChainTokens, Tokens

    structures = [*read(path)]
    if len(structures) > 1:
        raise UnreadableInput(f"{path}: contains {len(structures)} structures; one can be compared")
    tokens = structures[0].tokens
    if isinstance(tokens, FoldmintError):
        raise tokens
    if isinstance(tokens, Tokens):
        return tokens
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < 2**16:
        raise UnreadableInput(f"{path}: tokens out of range: {tokens.min()} to {tokens.max()}")
    length = len(tokens)
    index = np.arange(1, length + 1, dtype=np.int32)
    chain = ChainTokens("", "X" * length, index, "", tokens.astype(np.uint16), np.ones(length, np.bool_), None)
    return Tokens(structures[0].model, structures[0].codebook_version, (chain,))


def _only(tokens: "Tokens", name: str | None, path: str) -> "Tokens":
    from dataclasses import replace

    if name is None:
        return tokens
    chains = tuple(chain for chain in tokens.chains if chain.chain == name)
    if not chains:
        fail(f"{path}: no chain {name!r}; its chains: {', '.join(chain.chain for chain in tokens.chains)}", INCOMPLETE)
    return replace(tokens, chains=chains)


def _print_json(
    paths: tuple[str, str], sides: "tuple[Tokens, Tokens]", found: "list[ChainComparison]", near: float | None
) -> None:
    import json

    from foldmint_client.analysis.comparison import share

    names = ("a", "b")
    answer: dict[str, object] = {
        name: {"source": path, "model": tokens.model, "codebook_version": tokens.codebook_version}
        for name, path, tokens in zip(names, paths, sides, strict=True)
    }
    answer |= {"share": share(found), "near_distance": near, "pairs": [pair.row() for pair in found]}
    typer.echo(json.dumps(answer, allow_nan=False))


def _print(
    paths: tuple[str, str], sides: "tuple[Tokens, Tokens]", found: "list[ChainComparison]", *, near: bool
) -> None:
    from rich.console import Console

    from foldmint_client.analysis.comparison import Kind, share

    console = Console(highlight=False, markup=False, soft_wrap=True)
    versions = [tokens.codebook_version for tokens in sides]
    if versions[0] != versions[1]:
        typer.echo(f"note: the tokens are of codebook versions {' and '.join(versions)}", err=True)
    for pair in found:
        console.print(f"A: {paths[0]} {pair.first.chain}\nB: {paths[1]} {pair.second.chain}", style="bold")
        _print_columns(console, pair)
        kinds = (
            [Kind.NEAR, Kind.DIFFERENT, Kind.GAP, Kind.UNKNOWN] if near else [Kind.DIFFERENT, Kind.GAP, Kind.UNKNOWN]
        )
        names = {Kind.GAP: "in gaps", Kind.UNKNOWN: "without a frame"}
        counts = ", ".join(f"{pair.count(kind)} {names.get(kind, kind.name.lower())}" for kind in kinds)
        console.print(f"{pair.count(Kind.EQUAL)} of {pair.compared} tokens equal{_percent(pair.share)}; {counts}\n")
    if len(found) > 1:
        console.print(f"all chains: equal{_percent(share(found))}", style="bold")


def _percent(value: float | None) -> str:
    return "" if value is None else f" ({value:.1%})"


def _print_columns(console: "Console", pair: "ChainComparison") -> None:
    from rich.text import Text

    cell, head = 5, 9
    width = max((min(console.width, 200) if sys.stdout.isatty() else 120) - head, cell) // cell
    alignment = pair.alignment
    sides = (
        ("A", pair.first, pair.first_codes, alignment.first),
        ("B", pair.second, pair.second_codes, alignment.second),
    )
    for start in range(0, len(pair.kinds), width):
        columns = range(start, min(start + width, len(pair.kinds)))
        lines = []
        for name, chain, codes, places in sides:
            shown = [place for place in places[columns.start : columns.stop] if place >= 0]
            line = Text(f"{name} {chain.residue_index[shown[0]] if shown else '':>6} ")
            for column in columns:
                place = places[column]
                text = "-" if place < 0 else str(codes[place])
                line.append(f"{text:>{cell}}", _STYLES[pair.kinds[column]])
            lines.append(line)
        marks = Text(" " * head)
        for column in columns:
            marks.append(f"{_MARKS[pair.kinds[column]]:>{cell}}", _STYLES[pair.kinds[column]])
        console.print(Text("\n").join([lines[0], marks, lines[1]]), end="\n\n")
