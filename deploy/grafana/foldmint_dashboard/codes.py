"""How the codes are used: all 4096 in a square, the long tail, utilization and perplexity, dead codes, drift."""

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import table, timeseries, trend, xychart
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as dashboard_models
from grafana_foundation_sdk.models.common import ScaleDistribution
from grafana_foundation_sdk.models.xychart import PointShape, SeriesMapping, XYShowMode

from foldmint_dashboard.panels import (
    CODEBOOK,
    RATE,
    SERVERS,
    SOURCE,
    PanelBuilder,
    by_threshold,
    course,
    listing,
    property_of,
    rows,
    thresholds,
    transformation,
)

SIDE = 64
"""Codes of a row of the square."""
_HITS = f"code:foldmint_code_hits:increase$window{{{CODEBOOK}}}"
# How often a code is used, in multiples of what it would be if all were used alike.
USE = f"sum by (code) ({_HITS}) / scalar(avg({_HITS}) > 0)"
# Unused codes gray, rare ones blue, common ones green, frequent ones yellow to red.
_FROM = (1e-9, 0.1, 0.3, 1, 3, 10)
_COLORS = ("#6b6f76", "#1f3b73", "#3274d9", "#37872d", "#fade2a", "#ff9830", "#e02f44")


def square() -> xychart.Panel:
    """All codes in a square: code 64 × row + column as a point, colored by its use.

    A heat map of Grafana has time as its x axis. Points may be anywhere: transformations make columns and rows of the
    label `code`, and the color is that of the value.
    """
    return (
        xychart.Panel()
        .title("Use of each code, in $window")
        .description(
            "Each point is a code: 64 × row + column. 1 is what it would be if all codes were used alike; gray codes "
            "were not used at all. Point at one to see which it is."
        )
        .datasource(SOURCE)
        .with_target(rows(USE))
        .transformations(
            [
                transformation("convertFieldType", conversions=[{"targetField": "code", "destinationType": "number"}]),
                _calculated("quotient", "code", "/", SIDE),
                transformation(
                    "calculateField",
                    mode="unary",
                    unary={"operator": "floor", "fieldName": "quotient"},
                    alias="row",
                    timeSeries=False,
                    replaceFields=False,
                ),
                _calculated("before", "row", "*", SIDE),
                _calculated("column", "code", "-", "before"),
                transformation(
                    "organize",
                    excludeByName={"Time": True, "quotient": True, "before": True},
                    indexByName={},
                    renameByName={"Value": "use"},
                ),
            ]
        )
        .mapping(SeriesMapping.MANUAL)
        .series(
            [
                xychart.XYSeriesConfig()
                .name(xychart.XychartXYSeriesConfigName().fixed("code"))
                .frame(xychart.XychartXYSeriesConfigFrame().matcher(xychart.MatcherConfig().id("byIndex").options(0)))
                .x(xychart.XychartXYSeriesConfigX().matcher(_named("column")))
                .y(xychart.XychartXYSeriesConfigY().matcher(_named("row")))
                .color(xychart.XychartXYSeriesConfigColor().matcher(_named("use")))
            ]
        )
        .show(XYShowMode.POINTS)
        .point_shape(PointShape.SQUARE)
        .point_size(xychart.XychartFieldConfigPointSize().fixed(9))
        .point_stroke_width(0)
        .fill_opacity(100)
        .color_scheme(by_threshold())
        .thresholds(thresholds(*_FROM, colors=_COLORS))
        .decimals(0)
        .override_by_name("use", [property_of("decimals", 3)])
        .override_by_name("column", [property_of("min", -1), property_of("max", SIDE)])
        .override_by_name("row", [property_of("min", -1), property_of("max", SIDE)])
        .legend(common_builders.VizLegendOptions().show_legend(False))
        .height(21)
        .span(12)
    )


def tail() -> trend.Panel:
    """The codes by their use, the most used first."""
    return (
        trend.Panel()
        .title("The long tail, in $window")
        .description("Use of the codes from the most to the least used. 1 is what it would be if all were used alike.")
        .datasource(SOURCE)
        .with_target(rows(f"sort_desc({USE})"))
        .transformations(
            [
                transformation("sortBy", fields={}, sort=[{"field": "Value", "desc": True}]),
                transformation(
                    "calculateField", mode="index", index={"asPercentile": False}, alias="rank", replaceFields=False
                ),
                transformation(
                    "organize",
                    excludeByName={"Time": True, "code": True},
                    indexByName={"rank": 0, "Value": 1},
                    renameByName={"Value": "use"},
                ),
            ]
        )
        .x_field("rank")
        .fill_opacity(20)
        .show_points(common.VisibilityMode.NEVER)
        .scale_distribution(
            common_builders.ScaleDistributionConfig().type(ScaleDistribution.SYMLOG).log(10).linear_threshold(0.01)
        )
        .legend(common_builders.VizLegendOptions().show_legend(False))
        .height(7)
        .span(12)
    )


def quantiles() -> timeseries.Panel:
    """How the tail changes: quantiles of the codes' use over time."""
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    return course(
        "Use of the codes, by quantile",
        "How often codes are used, in multiples of the mean: half of the codes are used less than the line 50 % says.",
        *((f"quantile({share}, {_HITS}) / avg({_HITS})", f"{100 * share:g} %") for share in shares),
        width=12,
        height=7,
    ).max_data_points(120)


def extremes() -> table.Panel:
    """The codes that are used the most."""
    return listing(
        "The most used codes, in $window",
        "1 is what it would be if all codes were used alike.",
        rows(f"topk(20, {USE})"),
        width=12,
        height=7,
    ).transformations(
        [
            transformation("sortBy", fields={}, sort=[{"field": "Value", "desc": True}]),
            transformation(
                "organize", excludeByName={"Time": True}, indexByName={"code": 0}, renameByName={"Value": "use"}
            ),
        ]
    )


def utilization() -> timeseries.Panel:
    """The share of the codes that are used."""
    return course(
        "Utilization",
        "Share of the codes that were hit. The line of a server is over its own window (--usage-window).",
        (f"codebook:foldmint_code_utilization:ratio1h{{{CODEBOOK}}}", "all servers, 1h"),
        (f"codebook:foldmint_code_utilization:ratio1d{{{CODEBOOK}}}", "all servers, 1d"),
        (f"foldmint_code_utilization_ratio{{{SERVERS}}}", "{{instance}}"),
        unit="percentunit",
    ).max(1)


def perplexity() -> timeseries.Panel:
    """How many codes it would be if all were used alike."""
    return course(
        "Perplexity",
        "As many codes, used alike, would be as hard to guess.",
        (f"codebook:foldmint_code_perplexity:over1h{{{CODEBOOK}}}", "all servers, 1h"),
        (f"codebook:foldmint_code_perplexity:over1d{{{CODEBOOK}}}", "all servers, 1d"),
        (f"foldmint_code_perplexity{{{SERVERS}}}", "{{instance}}"),
    )


def dead() -> timeseries.Panel:
    """Codes that are not used."""
    codes = f"on (job, model, version, digest) codebook:foldmint_codes:count{{{CODEBOOK}}}"
    return course(
        "Codes not used",
        "Once there were ten residues a code: before, chance leaves many out.",
        (f"codebook:foldmint_dead_codes:ratio1h{{{CODEBOOK}}} * {codes}", "all servers, 1h"),
        (f"codebook:foldmint_dead_codes:ratio1d{{{CODEBOOK}}} * {codes}", "all servers, 1d"),
        (f"foldmint_dead_codes{{{SERVERS}}}", "{{instance}}"),
    )


def distance() -> timeseries.Panel:
    """How far vectors are from their codes, where drift shows first."""
    within = f"sum by (le) (rate(foldmint_quantization_distance_bucket{{{SERVERS}}}{RATE}))"
    return course(
        "Distance from vectors to codes",
        "In units of the code vectors. It rises when structures come that the codebook was not made for.",
        (f"codebook:foldmint_quantization_distance:mean1h{{{CODEBOOK}}}", "mean, 1h"),
        (f"codebook:foldmint_quantization_distance:mean1d{{{CODEBOOK}}}", "mean, 1d"),
        (f"histogram_quantile(0.5, {within})", "50 %"),
        (f"histogram_quantile(0.99, {within})", "99 %"),
    )


def drift() -> timeseries.Panel:
    """How much the use of the codes has changed."""
    return course(
        "Drift of the use",
        "Population stability index of the last hour against the day before it: over 0.25 more than chance says, the "
        "codes are used otherwise.",
        (f"codebook:foldmint_code_drift:psi1h{{{CODEBOOK}}}", "index"),
        (f"codebook:foldmint_code_drift:chance1h{{{CODEBOOK}}}", "by chance"),
    )


def hits() -> timeseries.Panel:
    """Residues that the windows' figures rest on."""
    return course(
        "Residues counted",
        "Hits of all codes, which the figures beside rest on.",
        (f"codebook:foldmint_code_hits:increase1h{{{CODEBOOK}}}", "all servers, 1h"),
        (f"codebook:foldmint_code_hits:increase1d{{{CODEBOOK}}}", "all servers, 1d"),
        (f"foldmint_window_residues{{{SERVERS}}}", "{{instance}}"),
    )


def panels() -> list[PanelBuilder]:
    """The row's panels, in their order."""
    return [
        square(),
        tail(),
        quantiles(),
        extremes(),
        utilization(),
        perplexity(),
        dead(),
        distance(),
        drift(),
        hits(),
    ]


def _named(field: str) -> xychart.MatcherConfig:
    return xychart.MatcherConfig().id("byName").options(field)


def _calculated(alias: str, left: str, operator: str, right: str | int) -> dashboard_models.DataTransformerConfig:
    """A field calculated from another, and a number or a third."""
    return transformation(
        "calculateField",
        mode="binary",
        binary={
            "left": {"matcher": {"id": "byName", "options": left}},
            "operator": operator,
            "right": {"fixed": str(right)}
            if isinstance(right, int)
            else {"matcher": {"id": "byName", "options": right}},
        },
        alias=alias,
        timeSeries=False,
        replaceFields=False,
    )
