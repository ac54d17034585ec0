"""The page of a repair: gates, what was moved, and how the codes are used before and after."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from foldmint_maintenance.html_page import document, figure, table
from foldmint_maintenance.repair.result import RepairResult


def page(done: RepairResult, name: str) -> str:
    """A whole HTML document; name: of the store."""
    title = f"Repair of {name}"
    return document(title, [f"<h1>{escape(title)}</h1>", *_parts(done)])


def _parts(done: RepairResult) -> Iterator[str]:
    outcome = f"codebook {done.version}, made from {done.parent}" if done.published else "nothing"
    yield f"<p>{done.dead:,} codes were dead, {len(done.replaced):,} were moved. Published: {escape(outcome)}.</p>"
    if done.gates:
        yield "<h2>Gates</h2>"
        rows = [
            (name, _told(gate.before), _told(gate.after), _told(gate.limit), "yes" if gate.passed else "NO")
            for name, gate in done.gates.items()
        ]
        yield table(("gate", "before", "after", "limit", "passed"), rows)
    if done.hits is not None:
        # Here, not above: matplotlib takes a second to load.
        from foldmint_maintenance.evaluation import plots

        yield "<h2>Use of the codes</h2>"
        yield figure(
            plots.usage_change(*done.hits),
            "Residues of the gates' chains that got each code, the most used code first, before and after.",
        )
    if "reconstruction" in done.statistics:
        yield "<h2>Reconstruction</h2>"
        yield "<p>Of the gates' chains; without rows: had the decoder's rows of moved codes not been retrained.</p>"
        yield table(
            ("codebook", "backbone RMSD, Å, median", "lDDT-CA, median"),
            [
                (name.replace("_", " "), _told(each["backbone_rmsd"]), _told(each["lddt_ca"]))
                for name, each in done.statistics["reconstruction"].items()
            ],
        )
    if done.replaced:
        yield f"<details><summary>Codes</summary><p>{', '.join(map(str, done.replaced))}</p></details>"
    if done.notes:
        yield "<h2>Notes</h2>"
        yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in done.notes) + "</ul>"
    yield "<h2>All figures</h2>"
    yield f"<details><summary>JSON</summary><pre>{escape(json.dumps(done.as_json(), indent=2))}</pre></details>"


def _told(value: Any) -> str:  # noqa: ANN401 (a number or None)
    return "–" if value is None else f"{value:.6g}"
