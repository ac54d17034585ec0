"""The page of a repair, whatever its outcome: what became of it, servers, gates, what was moved, use of the codes."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from foldmint_maintenance.html_page import document, figure, table
from foldmint_maintenance.repair.gates import MEANINGS
from foldmint_maintenance.repair.result import RepairResult
from foldmint_maintenance.repair.run_record import RunRecord

_OUTCOMES = {
    "success": "It ended well.",
    "error": "It ended with an error.",
    "gate_failed": "A gate failed; nothing was published.",
    "locked": "Another run holds the store's lock; nothing was done.",
    "not_activated": "A server did not serve the new codebook as it should; the store's active codebook is as before.",
    "stopped": "It was stopped; the store is whole, and it can be run again.",
}


def page(run: RunRecord) -> str:
    """A whole HTML document."""
    title = f"Repair of {run.store}"
    return document(title, [f"<h1>{escape(title)}</h1>", *_parts(run)])


def _parts(run: RunRecord) -> Iterator[str]:
    yield f"<p><strong>{escape(_OUTCOMES.get(run.outcome, run.outcome))}</strong> {escape(_times(run))}</p>"
    if run.error:
        yield f"<pre>{escape(run.error)}</pre>"
    for title, lines in (("Problems", run.problems), ("Warnings", run.warnings)):
        if lines:
            yield f"<h2>{title}</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
    if run.result is not None:
        yield _summary(run.result, dry_run=run.dry_run)
    if run.servers:
        yield "<h2>Servers</h2>"
        head = ("server", "outcome", "asked to serve", "served before", "reason")
        yield table(
            head, [(one.address, one.outcome, one.version, one.previous or "–", one.reason) for one in run.servers]
        )
    if run.result is not None:
        yield from _result(run.result)
    yield "<h2>All figures</h2>"
    yield f"<details><summary>JSON</summary><pre>{escape(json.dumps(run.as_json(), indent=2))}</pre></details>"


def _times(run: RunRecord) -> str:
    begun = run.started.isoformat(sep=" ", timespec="seconds")
    if run.finished is None:
        return f"Begun {begun}."
    return f"Begun {begun}, ended {(run.finished - run.started).total_seconds():,.0f} s later."


def _summary(done: RepairResult, *, dry_run: bool) -> str:
    outcome = f"codebook {done.version}, made from {done.parent}" if done.published else "nothing"
    active = ", active in the store" if done.activated else ", not active in the store" if done.published else ""
    verb = "would be moved" if dry_run else "were moved"
    return f"<p>{done.dead:,} codes were dead, {len(done.replaced):,} {verb}. Published: {escape(outcome)}{active}.</p>"


def _result(done: RepairResult) -> Iterator[str]:
    if done.gates:
        yield "<h2>Gates</h2>"
        rows = [
            (
                name,
                MEANINGS.get(name, ""),
                *(_format(value) for value in (gate.before, gate.after, gate.limit)),
                "yes" if gate.passed else "NO",
            )
            for name, gate in done.gates.items()
        ]
        yield table(("gate", "what it is", "before", "after", "limit", "passed"), rows)
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
                (name.replace("_", " "), _format(each["backbone_rmsd"]), _format(each["lddt_ca"]))
                for name, each in done.statistics["reconstruction"].items()
            ],
        )
    if done.replaced:
        yield f"<details><summary>Codes</summary><p>{', '.join(map(str, done.replaced))}</p></details>"
    if done.notes:
        yield "<h2>Notes</h2>"
        yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in done.notes) + "</ul>"


def _format(value: Any) -> str:  # noqa: ANN401 (a number or None)
    return "–" if value is None else f"{value:.6g}"
