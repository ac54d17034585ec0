"""Hits read from a real Prometheus: of readings written into it, whose sums are known, and of a server that runs."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from typer.testing import CliRunner

from foldmint_client import Backbone, Client, CodebookAdmin
from foldmint_maintenance.cli import main
from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.errors import UsageUnknown
from foldmint_maintenance.usage.prometheus_api import Prometheus
from foldmint_maintenance.usage.prometheus_counts import counted
from foldmint_maintenance.usage.sources import from_prometheus, from_servers
from foldmint_maintenance.usage.statistics import psi
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import Store
from helpers.monitoring.real_prometheus import awaited, free_port, prometheus
from helpers.support import missing, running_server

MINUTE = 60
END = int(time.time()) // 60 * 60 - 600  # of what is written, seconds since 1970


class Readings:
    """A history that Prometheus is given: what it would have read of servers, once a minute."""

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[float, float]]] = {}

    def process(
        self,
        instance: str,
        minutes: range,
        began: float,
        hits: Callable[[int], list[float]],
        codebooks: dict[int, str],
        job: str = "foldmint",
    ) -> None:
        """A server's process. minutes: of its readings, END is 0. began: minute. hits: of each code at a minute.

        codebooks: by the minute of their activation.
        """
        target = f'instance="{instance}",job="{job}"'
        for minute in minutes:
            at = END + minute * MINUTE
            activated = max(each for each in codebooks if each <= minute)
            version = codebooks[activated]
            self._read(f'foldmint_codebook_info{{{target},model="m",version="{version}",digest="d{version}"}}', at, 1)
            self._read(f"foldmint_codebook_activated_timestamp_seconds{{{target}}}", at, END + activated * MINUTE - 5)
            self._read(f"process_start_time_seconds{{{target}}}", at, END + began * MINUTE)
            swaps = sum(each <= minute for each in codebooks) - 1
            for outcome, times in (("activated", swaps), ("rolled_back", 0), ("refused", 3)):
                self._read(f'foldmint_codebook_swaps_total{{{target},outcome="{outcome}"}}', at, times)
            for code, count in enumerate(hits(minute)):
                self._read(f'foldmint_code_hits_total{{{target},code="{code}"}}', at, count)

    def _read(self, series: str, at: float, value: float) -> None:
        self.series.setdefault(series, []).append((at, value))

    @contextmanager
    def served(self, folder: Path) -> Iterator[Prometheus]:
        """A Prometheus that has read all this."""
        if which("promtool") is None:
            missing("promtool, of Debian's package prometheus,", "`apt-get install prometheus` installs it")
        text = "".join(
            f"{series} {value!r} {at}\n" for series in sorted(self.series) for at, value in sorted(self.series[series])
        )
        (folder / "readings").write_text(text + "# EOF\n")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*command, folder / "readings", folder / "data"], check=True, capture_output=True)
        with prometheus(f"127.0.0.1:{free_port()}", folder) as address:
            assert awaited(address, "vector(1)", 1) == 1
            yield Prometheus(f"http://{address}/", timeout=120)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    readings = Readings()
    # An old process: from 000001 to 000002 an hour before the end; 1, 2 and 0 hits a minute, then 0, 5 and 3.
    old = {-10_000: "000001", -60: "000002"}
    readings.process(
        "a:1",
        range(-180, 1),
        -10_000,
        lambda minute: [1000 + min(minute, -60), 2 * minute + 3 * max(0, minute + 60) + 1000, max(0, minute + 60) * 3],
        old,
    )
    # One that came half an hour ago, and was started again: its counters are soon higher than before.
    readings.process("b:1", range(-30, -10), -30.5, lambda minute: [7, 40 + minute, 1], {-31: "000002"})
    readings.process("b:1", range(-10, 1), -10.9, lambda minute: [9, 100 + minute, 1], {-11: "000002"})
    # One that went.
    readings.process("c:1", range(-50, -20), -51, lambda _: [0, 0, 11], {-51: "000002"})
    # Another fleet, which has not followed; a process that was exchanged before it was first read.
    readings.process("x:1", range(-30, 1), -31, lambda _: [1, 1, 1], {-31: "000001"}, job="other")
    readings.process("y:1", range(-30, 1), -33, lambda m: [50, 60, 90 + m], {-33: "000000", -32: "000003"}, job="late")
    with readings.served(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def test_hits_since_the_codebook_was_activated(written: Prometheus) -> None:
    found = counted(written, 120 * MINUTE, 'job="foldmint"', END)
    assert found.counts.version == "000002"
    # a: from its first reading under 000002; b: all that both processes counted; c: all that it counted.
    a, b, c = [0, 60 * 5, 60 * 3], [7 + 9, 29 + 100, 1 + 1], [0, 0, 11]
    assert found.counts.counts.tolist() == [sum(each) for each in zip(a, b, c, strict=True)]
    assert found.counts.residues == sum(a + b + c)
    assert (found.first, found.last) == (END - 60 * MINUTE, END)
    assert "on 3 servers, in 4 stretches" in found.counts.notes[0]
    assert "other codebooks" in found.counts.notes[1]
    assert found.counts.source == f'hits in {written.url}, {{job="foldmint"}}'


def test_a_window_within(written: Prometheus) -> None:
    # The last quarter: b's first process began before it, and counts from its first reading in the window.
    found = counted(written, 15 * MINUTE + 1, '{instance=~"[ab]:1", job="foldmint"}', END)
    assert found.counts.counts.tolist() == [9, 15 * 5 + 4 + 100, 15 * 3 + 1]
    assert found.first == END - 15 * MINUTE


def test_an_earlier_codebook(written: Prometheus) -> None:
    selector = 'job="foldmint"'
    found = counted(written, 120 * MINUTE, selector, END, version="000001")
    assert (found.counts.version, found.counts.counts.tolist()) == ("000001", [59, 59 * 2, 0])
    before = counted(written, 30 * MINUTE, selector, counted(written, 7200, selector, END).first - 0.001)
    assert (before.counts.version, before.counts.counts.tolist()) == ("000001", [29, 29 * 2, 0])
    assert before.last == END - 61 * MINUTE
    with pytest.raises(UsageUnknown, match="no server reported codebook 000009"):
        counted(written, 120 * MINUTE, selector, END, version="000009")


def test_what_was_exchanged_before_the_first_reading_does_not_count(written: Prometheus) -> None:
    found = counted(written, 120 * MINUTE, 'job="late"', END)
    assert (found.counts.version, found.counts.counts.tolist()) == ("000003", [0, 0, 30])


def test_servers_that_disagree(written: Prometheus) -> None:
    with pytest.raises(UsageUnknown, match=r"not serve one codebook, but 000001 of m \(d000001\), 000002 of m"):
        counted(written, 120 * MINUTE, 'job=~"foldmint|other"', END)
    assert from_prometheus(written.url, 7200, selector='job="other"', end=END).counts.tolist() == [1, 1, 1]


def test_a_long_window_comes_in_parts(written: Prometheus) -> None:
    # Of its last day, only the first minutes hold readings.
    long = counted(written, 4 * 86_400.0, 'job="foldmint"', END + 86_400 - 300)
    short = counted(written, 120 * MINUTE, 'job="foldmint"', END)
    assert long.counts.counts.tolist() == short.counts.counts.tolist()
    assert (long.first, long.last) == (short.first, short.last)


def test_what_prometheus_cannot_tell(written: Prometheus) -> None:
    with pytest.raises(UsageUnknown, match=r'holds no foldmint_codebook_activated_timestamp_seconds\{job="none"\}'):
        counted(written, 7200, 'job="none"', END)
    with pytest.raises(UsageUnknown, match="in this window"):
        counted(written, 60, "", END - 10 * 86_400)
    with pytest.raises(UsageUnknown, match="parse error"):
        counted(written, 7200, 'job="', END)
    for window in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="window"):
            counted(written, window)
    assert written.now() == pytest.approx(time.time(), abs=60)


@pytest.mark.slow
def test_a_server_that_runs(model: Model, codebook: Codebook, records: list[Record], tmp_path: Path) -> None:
    place = tmp_path / "a-model"
    Store(place).publish(Codebook(*(part.flip(0) for part in codebook)), parent="000001", about={})
    framed = [int(np.isfinite(record.coordinates).all((1, 2)).sum()) for record in records]
    with (
        running_server("--model", str(place)) as server,
        prometheus(server.metrics, tmp_path) as address,
        Client(server.address) as client,
        CodebookAdmin(server.admin) as admin,
    ):
        for record in records[:2]:
            client.tokenize(Backbone(record.coordinates, record.residue_index))
        first = sum(framed[:2])
        assert awaited(address, "sum(foldmint_code_hits_total)", first) == first
        before = admin.usage()
        assert admin.activate("000002").previous_version == "000001"
        assert awaited(address, 'foldmint_codebook_info{version="000002"}', 1) == 1
        for record in records[2:]:
            client.tokenize(Backbone(record.coordinates, record.residue_index), codebook_version="000002")
        assert awaited(address, "sum(foldmint_code_hits_total)", sum(framed)) == sum(framed)

        now = from_prometheus(f"http://{address}", 3600)
        told = from_servers([server.admin])
        assert (now.version, now.residues) == (told.version, told.residues) == ("000002", sum(framed[2:]))
        assert now.counts.tolist() == told.counts.tolist() == admin.usage().hits.tolist()
        # All that the process had counted until then was counted under the first.
        old = from_prometheus(f"http://{address}", 3600, version="000001")
        told = from_servers([server.admin], "000001")
        assert old.counts.tolist() == told.counts.tolist() == before.hits.tolist()
        assert old.residues == first
        assert server.admin in told.source

        file = tmp_path / "usage.json"
        window = ["usage", "--prometheus", f"http://{address}", "--window", "1h", "--against-window", "30m"]
        result = CliRunner().invoke(main.app, [*window, "--max-psi", "0.001", "--json-file", str(file)])
        assert result.exit_code == 3, result.output
        figures = json.loads(file.read_text())
        assert (figures["version"], figures["residues"]) == ("000002", sum(framed[2:]))
        assert (figures["against"]["version"], figures["against"]["drifted"]) == ("000001", True)
        assert figures["against"]["psi"] == pytest.approx(psi(now.counts, old.counts))
