"""Write Grafana's dashboard of Foldmint, which is kept as code: the same JSON each time.

python deploy/grafana/dashboard.py [FILE]   (deploy/grafana/dashboard.json unless another is given)
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from foldmint_dashboard import access, callers, codes, load, overview, repair
from foldmint_dashboard.frame import annotations, variables
from foldmint_dashboard.panels import PanelBuilder, placed

FILE = Path(__file__).with_name("dashboard.json")
ROWS = {
    "Overview": overview.panels,
    "Codes": codes.panels,
    "Latency": load.latency,
    "Saturation": load.saturation,
    "Callers": callers.panels,
    "Admission and store": access.panels,
    "Repair": repair.panels,
}


def dashboard() -> builders.Dashboard:
    """All of it."""
    made = (
        builders.Dashboard("Foldmint")
        .uid("foldmint")
        .description("Structure tokens: what is served, how the codes are used, how the servers bear it.")
        .tags(["foldmint"])
        .time("now-3h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .variables(variables())
        .annotations(annotations())
    )
    top, number = 0, 1
    for title, panels_of in ROWS.items():
        panels: list[PanelBuilder] = panels_of()
        made.with_row(builders.Row(title).id(number).grid_pos(models.GridPos(h=1, w=24, x=0, y=top)))
        top, number = placed(panels, top + 1), number + 1
        for panel in panels:
            panel.build().id_val = number
            made.with_panel(panel)
            number += 1
    return made


def text() -> str:
    """The dashboard's JSON."""
    return json.dumps(dashboard().build(), cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else FILE).write_text(text(), encoding="utf-8")
