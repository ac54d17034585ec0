"""What all panels are made of: queries of the data source that is chosen, and their common looks."""

from collections.abc import Iterable, Sequence

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PanelBuilder = Builder[dashboard.Panel]
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
SERVERS = 'job="$job",instance=~"$instance"'
"""Series of the servers that are chosen."""
JOB = 'job="$job"'
"""Series that the rules sum over a job."""
CODEBOOK = 'job="$job",version="$version"'
"""Series that the rules sum over the servers of a codebook."""
RATE = "[$__rate_interval]"

WIDTH = 24
"""Of the grid."""
STEPS = ("green", "orange", "red")
"""Colors of thresholds, from good to bad."""


def query(expr: str, legend: str = "", *, ref: str = "A", at_end: bool = False) -> prometheus.Dataquery:
    """A query over the dashboard's range, or at its end. legend: with {{label}}."""
    made = prometheus.Dataquery().expr(expr).ref_id(ref).datasource(SOURCE)
    made = made.legend_format(legend) if legend else made
    return made.instant() if at_end else made.range()


def rows(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """A query at the end of the range, as a table: fields Time, one for each label, and Value."""
    return query(expr, ref=ref, at_end=True).format(PromQueryFormat.TABLE)


def queries(*expressions: tuple[str, str]) -> list[prometheus.Dataquery]:
    """Queries over the range, each with its legend, named A, B, C."""
    return [query(expr, legend, ref=chr(ord("A") + i)) for i, (expr, legend) in enumerate(expressions)]


def thresholds(*values: float, colors: Sequence[str] = STEPS) -> dashboard_builders.ThresholdsConfig:
    """Colors from each value on, the first below them all."""
    steps = [dashboard.Threshold(value=None, color=colors[0])]
    steps += [dashboard.Threshold(value=value, color=color) for value, color in zip(values, colors[1:], strict=False)]
    return dashboard_builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def by_threshold() -> dashboard_builders.FieldColor:
    """A color that the thresholds decide."""
    return dashboard_builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def number(title: str, *targets: prometheus.Dataquery, unit: str = "short", width: int = 3) -> stat.Panel:
    """A number of now, large, over a sketch of its course."""
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .targets(list(targets))
        .unit(unit)
        .height(4)
        .span(width)
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.VALUE)
        .color_scheme(by_threshold())
        .thresholds(thresholds())
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def course(
    title: str, description: str, *expressions: tuple[str, str], unit: str = "short", width: int = 8, height: int = 8
) -> timeseries.Panel:
    """Lines over time, of expressions with legends."""
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets(list(queries(*expressions)))
        .unit(unit)
        .height(height)
        .span(width)
        .min(0)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """The panel's lines on top of each other."""
    return panel.fill_opacity(30).stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))


def listing(
    title: str, description: str, *targets: prometheus.Dataquery, width: int = 8, height: int = 8
) -> table.Panel:
    """A table of what queries of rows return."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets(list(targets))
        .height(height)
        .span(width)
    )


def transformation(name: str, **options: object) -> dashboard.DataTransformerConfig:
    """One of Grafana's transformations of what queries returned, which its page makes."""
    return dashboard.DataTransformerConfig(id_val=name, options=options)


def property_of(name: str, value: object) -> dashboard.DynamicConfigValue:
    """A property of a field, for overrides."""
    return dashboard.DynamicConfigValue(id_val=name, value=value)


def placed(panels: Iterable[PanelBuilder], top: int) -> int:
    """Give panels their places below `top`, each as high and as far to the left as it fits; returns where they end."""
    ends = [top] * WIDTH  # of what is placed, for each column of the grid
    for panel in panels:
        place = panel.build().grid_pos
        if place is None:
            raise ValueError("a panel has no size")
        place.y, place.x = min((max(ends[x : x + place.w]), x) for x in range(WIDTH - place.w + 1))
        ends[place.x : place.x + place.w] = [place.y + place.h] * place.w
    return max(ends)
