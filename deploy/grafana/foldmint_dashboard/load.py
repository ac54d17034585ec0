"""How long requests take and in which stage, and what is about to be full."""

from grafana_foundation_sdk.builders import heatmap, timeseries
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from foldmint_dashboard.panels import JOB, RATE, SERVERS, SOURCE, PanelBuilder, course, query, stacked


def times() -> heatmap.Panel:
    """Requests by how long they took."""
    took = f'foldmint_request_duration_seconds_bucket{{{SERVERS},method!="GetModel"}}'
    return (
        heatmap.Panel()
        .title("Times of requests")
        .description("How many structures took how long, from arrival to answer.")
        .datasource(SOURCE)
        .with_target(
            query(
                f"sum by (le) (increase({took}{RATE}))",
                "{{le}}",
            ).format(PromQueryFormat.HEATMAP)
        )
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Turbo").steps(64))
        .height(8)
        .span(12)
        .max_data_points(120)
    )


def latency() -> list[PanelBuilder]:
    """Times by method and by stage."""
    return [
        times(),
        course(
            "Times, by method",
            "Seconds from a structure's arrival to its answer, of half and of 99 % of them.",
            (f"method:foldmint_request_duration_seconds:p50_5m{{{JOB}}} > 0", "{{method}} 50 %"),
            (f"method:foldmint_request_duration_seconds:p99_5m{{{JOB}}} > 0", "{{method}} 99 %"),
            unit="s",
            width=12,
        ),
        stacked(
            course(
                "Mean time, by stage",
                "Where a structure's time goes: parse (reading it), queue (admitted, nothing computed), compute or "
                "decode.",
                (f"stage:foldmint_stage_duration_seconds:mean5m{{{JOB}}}", "{{stage}}"),
                unit="s",
                width=12,
            )
        ),
        course(
            "99 % of the times, by stage",
            "Seconds that 99 % of the structures are within.",
            (f"stage:foldmint_stage_duration_seconds:p99_5m{{{JOB}}} > 0", "{{stage}}"),
            unit="s",
            width=12,
        ),
    ]


def queues() -> timeseries.Panel:
    """How full the queues are."""
    return course(
        "Queues, share of their limits",
        "Residues admitted and not yet computed. A full queue turns structures away.",
        (f"instance:foldmint_queue:ratio{{{SERVERS}}}", "{{instance}} {{queue}}"),
        unit="percentunit",
    )


def saturation() -> list[PanelBuilder]:
    """Queues, steps, processes, GPUs."""
    return [
        queues(),
        course(
            "Fill of the device's steps",
            "Residues of a step, as a share of the most that it takes. Near 1 the device has all it can do.",
            (f"instance:foldmint_batch_fill:mean5m{{{SERVERS}}}", "{{instance}}"),
            unit="percentunit",
        ).max(1),
        course(
            "Steps of the device a second",
            "Each computes residues of several structures.",
            (f"sum by (instance) (rate(foldmint_batches_total{{{SERVERS}}}{RATE}))", "{{instance}}"),
        ),
        course(
            "Structures under way",
            "Arrived and not yet answered.",
            (f"foldmint_requests_in_flight{{{SERVERS}}}", "{{instance}}"),
        ),
        course(
            "Structures turned away a second",
            "By reason: the queue was full, the caller's rate was used up, or the server was stopping.",
            (f'sum by (reason) (rate(foldmint_rejects_total{{{SERVERS},reason!~"too_many_.*"}}{RATE}))', "{{reason}}"),
        ),
        course(
            "Parsers that were ended",
            "Processes that read large files, in five minutes, by reason: limit, of time or memory, or crash.",
            (f"sum by (reason) (increase(foldmint_parsers_killed_total{{{SERVERS}}}[5m]))", "{{reason}}"),
        ),
        course(
            "CPU of the server",
            "Cores in use.",
            (f"rate(process_cpu_seconds_total{{{SERVERS}}}{RATE})", "{{instance}}"),
        ),
        course(
            "Memory of the server",
            "Resident.",
            (f"process_resident_memory_bytes{{{SERVERS}}}", "{{instance}}"),
            unit="bytes",
        ),
        course(
            "Memory of the GPU",
            "In use by all processes, held by the server's torch, and there at all. Nothing on a CPU.",
            (f"foldmint_gpu_memory_used_bytes{{{SERVERS}}}", "{{instance}} {{device}} in use"),
            (f"foldmint_gpu_memory_reserved_bytes{{{SERVERS}}}", "{{instance}} {{device}} torch"),
            (f"foldmint_gpu_memory_total_bytes{{{SERVERS}}}", "{{instance}} {{device}} total"),
            (f"foldmint_gpu_memory_allocated_bytes{{{SERVERS}}}", "{{instance}} {{device}} tensors"),
            unit="bytes",
        ),
        course(
            "Utilization of the GPU",
            "Share of the last second in which it computed, for any process. Needs nvidia-ml-py; nothing on a CPU.",
            (f"foldmint_gpu_utilization_ratio{{{SERVERS}}}", "{{instance}} {{device}}"),
            unit="percentunit",
        ).max(1),
        course(
            "Time that devices compute",
            "Seconds of batches in each second; several workers of one CPU count together.",
            (
                f"sum by (instance, device) (rate(foldmint_batch_duration_seconds_sum{{{SERVERS}}}{RATE}))",
                "{{instance}} {{device}}",
            ),
            unit="percentunit",
        ),
        course(
            "Time of a batch, by device",
            "Of half and of 99 % of the batches.",
            *(
                (
                    f"histogram_quantile({share}, sum by (device, le) "
                    f"(rate(foldmint_batch_duration_seconds_bucket{{{SERVERS}}}{RATE})))",
                    f"{{{{device}}}} {100 * share:g} %",
                )
                for share in (0.5, 0.99)
            ),
            unit="s",
        ),
        course(
            "Residues of a batch, by device",
            "Of half and of 99 % of the batches.",
            *(
                (
                    f"histogram_quantile({share}, sum by (device, le) "
                    f"(rate(foldmint_batch_residues_bucket{{{SERVERS}}}{RATE})))",
                    f"{{{{device}}}} {100 * share:g} %",
                )
                for share in (0.5, 0.99)
            ),
        ),
        course(
            "Batches that failed",
            "In five minutes, by reason; device_lost: devices that compute nothing any more.",
            (f"sum by (reason) (increase(foldmint_step_failures_total{{{SERVERS}}}[5m]))", "{{reason}}"),
        ),
        course(
            "Time of a scrape",
            "How long Prometheus waits for the server's metrics.",
            (f"scrape_duration_seconds{{{SERVERS}}}", "{{instance}}"),
            unit="s",
        ),
    ]
