"""Bad files for the reader and bad messages for a server: no crash, no hang, bounded memory, documented errors.

    python -m benchmarks fuzz --json FILE

Files are randomly mutated real ones, read in a process with limited memory and time (`stress/reader.py`). Each must be
read, with valid backbones, or rejected with InvalidStructure. Messages are requests with values at their limits, some
with mutated bytes, sent to a real server (`stress/wire.py`). Each must be answered, or rejected with a status and
details that name the field. Inputs are determined by number and seed. An interrupted run resumes.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks._common import write
from benchmarks.stress import reader, wire
from benchmarks.stress.progress import Progress, tell
from benchmarks.stress.reader import Findings
from benchmarks.stress.servers import KillableServer

_CHUNK = 2_000
_SHOWN = 20


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    files: Annotated[int, typer.Option(help="Files for the reader.")] = 100_000,
    messages: Annotated[int, typer.Option(help="Messages for the server.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Random seed of the inputs.")] = 0,
) -> None:
    """Print a table. Fails if an input was neither accepted nor rejected correctly."""
    wanted = {"files": files, "messages": messages}
    progress = Progress(
        file, {**wanted, "seed": seed}, {kind: {"next": 0, "outcomes": {}, "wrong": []} for kind in wanted}
    )
    _hunt(progress, "files", files, lambda first, count: reader.hunt(first, count, seed))
    with KillableServer("--threads", "1", *wire.ARGUMENTS) as server:
        target = wire.Target(server.address, server.pid)
        _hunt(progress, "messages", messages, lambda first, count: target.hunt(first, count, seed))
        target.close()
        most = wire.memory(server.pid)
        code = server.stop()
    wrong = [one for kind in wanted for one in progress.state[kind]["wrong"]]
    if code:
        wrong.append(["the server", f"stopped with exit code {code}"])
    table = _table(progress.state, most)
    figures = {
        "settings": {**wanted, "seed": seed},
        "tables": [table],
        "bars": [
            {"measure": "neither taken nor refused as promised", "bar": "0", "found": len(wrong), "reached": not wrong}
        ],
        "wrong": wrong[:_SHOWN],
    }
    write(file, figures)
    progress.done()
    for row in table["rows"]:
        print(*row, sep="\t")
    if wrong:
        sys.exit("\n".join(f"{name}: {what}" for name, what in wrong[:_SHOWN]))


def _hunt(progress: Progress, kind: str, count: int, hunt: Callable[[int, int], Findings]) -> None:
    state = progress.state[kind]
    while state["next"] < count:
        found = hunt(state["next"], min(_CHUNK, count - state["next"]))
        state["outcomes"] = dict(Counter(state["outcomes"]) + found.outcomes)
        state["wrong"] += found.wrong
        state["next"] += found.inputs
        progress.save()
        tell(f"{kind}: {state['next']} of {count}, {state['outcomes']}, wrong: {len(state['wrong'])}")


def _table(state: dict[str, Any], server_bytes: int) -> dict[str, Any]:
    def row(kind: str, taken: str, memory: object) -> list[object]:
        outcomes = Counter(state[kind]["outcomes"])
        counts = [outcomes[taken], outcomes["refused"], outcomes["undecodable"], len(state[kind]["wrong"])]
        return [state[kind]["next"], *counts, memory]

    return {
        "title": "Bad input",
        "columns": ["inputs", "tried", "taken", "refused", "no protobuf", "anything else", "memory bound, MB"],
        "rows": [
            ["files, by the reader", *row("files", "read", reader.MEMORY_BYTES / 1e6)],
            ["messages, by the server", *row("messages", "answered", wire.GROWTH_BYTES / 1e6)],
        ],
        "server_peak_mb": server_bytes / 1e6,
    }


if __name__ == "__main__":
    typer.run(main)
