"""What stands around the panels: the choice of data source, servers, codebook and window, and what happened when."""

from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from foldmint_dashboard.panels import JOB, SERVERS, SOURCE


def variables() -> list[Builder[models.VariableModel]]:
    """The dashboard's variables, in their order."""
    return [
        builders.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _values("job", "Job", "label_values(foldmint_server_info, job)"),
        _values("instance", "Server", f"label_values(foldmint_server_info{{{JOB}}}, instance)")
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all")),
        # The last first, which is the one that is wanted, but after a rollback.
        _values("version", "Codebook", f"label_values(codebook:foldmint_codebook_info:count{{{JOB}}}, version)").sort(
            models.VariableSort.ALPHABETICAL_DESC
        ),
        builders.CustomVariable("window")
        .label("Window of the codes")
        .values("1h,1d")
        .current(models.VariableOption(selected=True, text="1h", value="1h"))
        .options(
            [
                models.VariableOption(selected=True, text="1h", value="1h"),
                models.VariableOption(selected=False, text="1d", value="1d"),
            ]
        ),
    ]


def annotations() -> list[Builder[models.AnnotationQuery]]:
    """Marks on the time axes: exchanged codebooks, refused ones, ends of repairs."""
    activated = (
        f"1000 * min by (version) (foldmint_codebook_activated_timestamp_seconds{{{SERVERS}}}"
        f" * on (job, instance) group_left (version) foldmint_codebook_info{{{SERVERS}}})"
    )
    return [
        Marks("Codebook activated", activated, "green", "Codebook {{version}} active", at_value=True),
        Marks(
            "Codebook refused",
            f'sum by (instance) (increase(foldmint_codebook_swaps_total{{{SERVERS},outcome="refused"}}[2m])) > 0',
            "red",
            "{{instance}} refused a codebook",
        ),
        Marks(
            "Repair ended",
            "1000 * max by (store) (foldmint_repair_last_run_timestamp_seconds)",
            "blue",
            "Repair of {{store}} ended",
            at_value=True,
        ),
    ]


class Marks(Builder[models.AnnotationQuery]):
    """Marks from a query. at_value: at the time, in ms since 1970, that is its value, rather than when it has one."""

    def __init__(self, name: str, expr: str, color: str, title: str, *, at_value: bool = False) -> None:
        self._made = _Query(name=name, expr=expr, icon_color=color, datasource=SOURCE, enable=True, hide=False)
        self._made.more = {"titleFormat": title, "useValueForTime": at_value, "step": "60s"}

    def build(self) -> models.AnnotationQuery:
        """The query."""
        return self._made


class _Query(models.AnnotationQuery):
    """With what Grafana's Prometheus takes besides, which the SDK does not know of."""

    more: dict[str, Any]

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self.more}


def _values(name: str, label: str, query: str) -> builders.QueryVariable:
    """A variable of the values that a label has in the range that is shown."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "qryType": 1, "refId": f"variable-{name}"})  # 1: values of a label
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
