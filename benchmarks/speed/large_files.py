"""Small requests while large files are read: how much longer they take.

    python -m benchmarks large-files --json FILE

One client sends small structures to a real server, one after another. In every other window, another process sends it
large mmCIF files, plain and compressed, one after another, of which one chain is tokenized: so the server reads all of
the file, and computes little. The small requests' times in these windows are compared with those in the windows next
to them.
"""

import gzip
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer

from benchmarks._common import ROOT, write
from benchmarks._load import loaded, pieces, server
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_client import Client

_MIB = 2**20
_MOST_MS = 50.0
_COPIES = 4  # of the structure in each chain
_THIS = [sys.executable, "-m", "benchmarks", "large-files"]
FORMS = ("plain", "gzip")


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    mebibytes: Annotated[int, typer.Option(help="Size of the large files, before compression.")] = 100,
    rounds: Annotated[int, typer.Option(help="Of two windows each, for each form.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 8.0,
    residues: Annotated[int, typer.Option(help="Of a small request.")] = 50,
    load_on: Annotated[str, typer.Option(hidden=True)] = "",
    form: Annotated[str, typer.Option(hidden=True)] = FORMS[0],
) -> None:
    """Print a table."""
    if load_on:
        load(load_on, mebibytes, form)
    found: dict[str, Windows] = {}
    with server(0, "--max-message-bytes", str(2 * mebibytes * _MIB)) as (address, _):
        for one in FORMS:
            own = found[one] = Windows()
            for _ in range(rounds):
                own.alone += window(address, seconds, residues)
                with loaded([*_THIS, "--load-on", address, "--form", one, "--mebibytes", str(mebibytes)]):
                    own.beside += window(address, seconds, residues)
            print(f"{one}: p99 {own.p99_alone:.1f} ms alone, {own.p99_beside:.1f} ms beside", flush=True)
    rows = [
        [name, *(float(np.percentile(times, part)) for times in (own.alone, own.beside) for part in (50, 99))]
        for name, own in found.items()
    ]
    columns = ["the file is", "p50 alone, ms", "p99 alone, ms", "p50 beside, ms", "p99 beside, ms"]
    bars = [
        {
            "measure": f"ms added to the p99 of small requests while a file of {mebibytes} MiB ({name}) is read",
            "bar": f"under {_MOST_MS:g}",
            "found": (added := own.p99_beside - own.p99_alone),
            "reached": added < _MOST_MS,
        }
        for name, own in found.items()
    ]
    write(
        file,
        {
            "tables": [
                {
                    "title": f"Requests of {residues} residues beside files of {mebibytes} MiB",
                    "columns": columns,
                    "rows": rows,
                }
            ],
            "bars": bars,
        },
    )


@dataclass
class Windows:
    """Milliseconds of each small request, while nothing else is asked for and while large files are read."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    @property
    def p99_alone(self) -> float:
        """The 99th percentile without large files."""
        return float(np.percentile(self.alone, 99))

    @property
    def p99_beside(self) -> float:
        """The 99th percentile beside large files."""
        return float(np.percentile(self.beside, 99))


def large_file(mebibytes: int) -> bytes:
    """An mmCIF file of at least this size: copies of the atoms of a real structure, in many chains."""
    text = (ROOT / "tests" / "data" / "1a8o.cif").read_text()
    first = text.index("\nATOM ") + 1
    rows = [row.split() for row in re.findall(r"^ATOM .*$", text, re.MULTILINE)]
    head = text[text.rindex("loop_", 0, first) : first]
    items = re.findall(r"_atom_site\.(\S+)", head)
    asym = [items.index(name) for name in ("label_asym_id", "auth_asym_id")]
    numbers = [items.index(name) for name in ("label_seq_id", "auth_seq_id")]
    span = len({row[numbers[0]] for row in rows}) + 200
    parts, size, chain = ["data_large\n#\n", head], 0, 0
    while size < mebibytes * _MIB:
        for copy in range(_COPIES):
            for row in rows:
                own = [*row]
                for place in asym:
                    own[place] = f"C{chain}"
                for place in numbers:
                    own[place] = str(int(row[place]) + copy * span)
                parts.append(" ".join(own) + "\n")
                size += len(parts[-1])
        chain += 1
    return "".join([*parts, "#\n"]).encode()


def window(address: str, seconds: float, residues: int) -> list[float]:
    """Milliseconds of each small request, one after another, for so long."""
    taken: list[float] = []
    with Client(address, timeout=600) as client:
        client.tokenize(next(pieces(residues)))  # connects
        until = time.perf_counter() + seconds
        for piece in pieces(residues):
            began = time.perf_counter()
            if began > until:
                return taken
            client.tokenize(piece)
            taken.append(1e3 * (time.perf_counter() - began))
            time.sleep(0.005)
    return taken


def load(address: str, mebibytes: int, form: str) -> None:
    """Send the file until this process is ended; a word once the first is answered."""
    content = large_file(mebibytes)
    content = gzip.compress(content, 1) if form == "gzip" else content
    request = pb.TokenizeRequest(file=pb.StructureFile(content=content, chains=["C1"]))
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        stub = rpc.TokenizerServiceStub(channel)
        while True:
            stub.Tokenize(request, timeout=600)
            print("read", flush=True)


if __name__ == "__main__":
    typer.run(main)
