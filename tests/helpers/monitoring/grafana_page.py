"""What Grafana's page does with a dashboard before it draws: put in variables, ask Prometheus, transform.

Grafana itself does not run here. This follows what its documentation says of the few transformations that are used;
it fails on others.
"""

import json
import math
import operator
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from helpers.monitoring.real_prometheus import HASTE
from helpers.support import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
T = TypeVar("T")
Frame = dict[str, list[Any]]
"""A table: each field with its values."""

_BINARY: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_UNARY: dict[str, Callable[[float], float]] = {"floor": math.floor, "ceil": math.ceil}


class Query(NamedTuple):
    """A query of the dashboard: of which panel or annotation, its name there, and whether it is of the range's end."""

    owner: str
    ref: str
    expr: str
    at_end: bool


def committed_dashboard() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text(encoding="utf-8"))
    return made


def queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """All queries of panels and annotations."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield Query(panel["title"], target["refId"], target["expr"], target["instant"])
    for annotation in dashboard["annotations"]["list"]:
        yield Query(annotation["name"], "annotation", annotation["expr"], at_end=False)


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """The text with values in place of variables, and times as the hastened rules have them.

    Raises KeyError for a variable that has no value, or a time that HASTE has not.
    """
    text = re.sub(r"(\[|\boffset )(\d+[smhd])\b", lambda match: match[1] + HASTE[match[2]], text)
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: variables[match[1] or match[2]], text)


class Prometheus:
    """Prometheus at HOST:PORT, asked as Grafana asks it.

    patience: seconds that a result may be empty, since a scrape that a busy machine delays leaves a gap.
    """

    def __init__(self, address: str, patience: float = 20.0) -> None:
        self._address, self._patience = address, patience
        self._began = time.time()

    def values_of(self, label: str, selector: str) -> list[str]:
        """The values of a label of the series that a selector selects."""
        found: list[str] = self._asked(f"label/{label}/values", {"match[]": selector})
        return found

    def rows(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of an expression, now."""
        result = self._asked("query", {"query": expr})["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def courses(self, expr: str) -> list[tuple[dict[str, str], list[float]]]:
        """Labels and values of an expression, at each second since this was made."""
        range_ = {"start": f"{self._began:.3f}", "end": f"{time.time():.3f}", "step": "1"}
        result = self._asked("query_range", {"query": expr, **range_})["result"]
        return [(one["metric"], [float(value) for _, value in one["values"]]) for one in result]

    def has_data(self, query: Query, expr: str, *, expected: bool = True) -> bool:
        """Whether a query yields a number; NaN is none. Nothing is waited for that is not expected."""

        def numbers() -> list[float]:
            found = [[value] for _, value in self.rows(expr)] if query.at_end else [v for _, v in self.courses(expr)]
            return [value for values in found for value in values if math.isfinite(value)]

        return bool(self._awaited(numbers) if expected else numbers())

    def table(self, expr: str, value: str = "Value") -> Frame:
        """A query's result in the format `table`: the time, a field for each label, and the value."""
        found = self._awaited(lambda: [row for row in self.rows(expr) if math.isfinite(row[1])])
        names = sorted({name for labels, _ in found for name in labels})
        frame: Frame = {"Time": [0.0] * len(found)}
        frame |= {name: [labels.get(name) for labels, _ in found] for name in names}
        return {**frame, value: [number for _, number in found]}

    def _awaited(self, ask: Callable[[], list[T]]) -> list[T]:
        """What is asked for, once it is anything; at last nothing."""
        until = time.monotonic() + self._patience
        while not (found := ask()) and time.monotonic() < until:
            time.sleep(0.5)
        return found

    def _asked(self, path: str, parameters: dict[str, str]) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def transformed(panel: Mapping[str, Any], frames: list[Frame]) -> list[Frame]:
    """What a panel's transformations make of the tables that its queries returned."""
    for step in panel["transformations"]:
        frames = _TRANSFORMATIONS[step["id"]](frames, step.get("options", {}))
    return frames


def _converted(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    for conversion in options["conversions"]:
        assert conversion["destinationType"] == "number"
        for frame in frames:
            frame[conversion["targetField"]] = [float(value) for value in frame[conversion["targetField"]]]
    return frames


def _calculated(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    assert not options["replaceFields"]
    for frame in frames:
        count = len(next(iter(frame.values())))
        if options["mode"] == "index":
            assert not options["index"]["asPercentile"]
            frame[options["alias"]] = list(range(count))
        elif options["mode"] == "unary":
            unary = options["unary"]
            frame[options["alias"]] = [_UNARY[unary["operator"]](value) for value in frame[unary["fieldName"]]]
        else:
            assert options["mode"] == "binary"
            sides = [_side(frame, options["binary"][name], count) for name in ("left", "right")]
            frame[options["alias"]] = list(map(_BINARY[options["binary"]["operator"]], *sides))
    return frames


def _side(frame: Frame, side: Mapping[str, Any], count: int) -> list[float]:
    if "fixed" in side:
        return [float(side["fixed"])] * count
    assert side["matcher"]["id"] == "byName"
    return frame[side["matcher"]["options"]]


def _organized(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    hidden, names, places = options["excludeByName"], options["renameByName"], options["indexByName"]
    for field in (*hidden, *names, *places):
        assert all(field in frame for frame in frames), f"there is no field {field}"
    return [
        {
            names.get(name, name): frame[name]
            for name in sorted(frame, key=lambda name: places.get(name, len(places)))
            if not hidden.get(name)
        }
        for frame in frames
    ]


def _sorted(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    (by,) = options["sort"]
    orders = [sorted(range(len(f[by["field"]])), key=f[by["field"]].__getitem__, reverse=by["desc"]) for f in frames]
    return [
        {name: [values[i] for i in order] for name, values in frame.items()}
        for frame, order in zip(frames, orders, strict=True)
    ]


def _merged(frames: list[Frame], _: Mapping[str, Any]) -> list[Frame]:
    """One row for all rows that agree in the fields that all frames have."""
    shared = [name for name in frames[0] if all(name in frame for frame in frames)]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for frame in frames:
        for i in range(len(frame[shared[0]])):
            rows.setdefault(tuple(frame[name][i] for name in shared), {}).update({n: v[i] for n, v in frame.items()})
    names = dict.fromkeys(name for frame in frames for name in frame)
    return [{name: [row.get(name) for row in rows.values()] for name in names}]


_TRANSFORMATIONS = {
    "convertFieldType": _converted,
    "calculateField": _calculated,
    "organize": _organized,
    "sortBy": _sorted,
    "merge": _merged,
}
