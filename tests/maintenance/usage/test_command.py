"""`foldmint-maintenance usage`: what it prints and writes of each source, what it compares, and what it exits with."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from foldmint.v1 import codebook_pb2, codebook_pb2_grpc
from foldmint_maintenance.cli import main
from foldmint_maintenance.datasets.records import Record, write_parquet
from foldmint_maintenance.errors import UsageUnknown
from foldmint_maintenance.usage.sources import from_data, from_servers, from_store
from foldmint_maintenance.usage.statistics import CodeCounts, psi
from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import Store, create_store
from helpers.monitoring.real_prometheus import awaited, free_port, prometheus


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout with single spaces, and stderr."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main.app, ["usage", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, "\n".join(" ".join(line.split()) for line in result.stdout.splitlines()), result.stderr


def published() -> NDArray[np.float64]:
    """4096 values of N with the statistics of the published codebook.

    Mean 64, standard deviation 111.24, minimum 0.0005, quartiles 29.75, 48.25 and 72.5, maximum 3376. Where these do
    not say, it is by choice: four codes below 10, and above the last quartile codes of two kinds.
    """
    N = np.empty(4096)
    for quarter, value in enumerate((20.0, 40.0, 60.0)):
        N[quarter * 1024 : (quarter + 1) * 1024] = value
    # The quartiles lie between two codes each, which are alike.
    N[[1023, 1024]], N[[2047, 2048]], N[[3071, 3072]] = 29.75, 48.25, 72.5
    N[:4] = 0.0005, 0.005, 0.05, 0.5
    N[4095] = 3376
    free, often = np.arange(3073, 4095), 100
    count = len(free)
    rest = np.delete(N, free)
    mean = (64 * 4096 - rest.sum()) / count
    variance = (4096 * (111.24**2 + 64**2) - np.square(rest).sum()) / count - mean**2
    N[free] = mean - np.sqrt(variance * often / (count - often))
    N[free[-often:]] = mean + np.sqrt(variance * (count - often) / often)
    assert (np.diff(N) >= 0).all()
    return np.random.default_rng(0).permutation(N)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose N has the published statistics, and a second version in which the half of the codes are dead."""
    torch.manual_seed(0)
    N = torch.from_numpy(published()).float()
    vectors = torch.randn(4096, 8)
    place = tmp_path / "published"
    encoder = Encoder(ModelConfig(width=16, heads=4, layers=2, out=8, codes=4096))
    create_store(place, name="tiny", encoder=encoder, codebook=Codebook(vectors, N, vectors * N[:, None]), about={})
    N = torch.where(torch.arange(4096) % 2 == 0, 0.0, N)
    Store(place).publish(Codebook(vectors, N, vectors * N[:, None]), parent="000001", about={})
    return place


def test_the_published_statistics(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "figures.json"
    status, out, err = run("--store", store, "--json-file", file)
    assert (status, err) == (0, "")
    told = json.loads(file.read_text())
    assert told["mean"] == pytest.approx(64.0, rel=1e-6)
    assert told["std"] == pytest.approx(111.24, rel=1e-6)
    assert told["quartiles"] == [29.75, 48.25, 72.5]
    assert (told["min"], told["max"]) == (pytest.approx(0.0005), 3376)
    assert (told["dead"], told["dead_threshold"], told["never_hit"], told["utilization"]) == (0, 1e-5, 0, 1)
    assert [below["codes"] for below in told["below"]] == [0, 1, 2, 3, 4]
    assert (told["codes"], told["version"], told["residues"]) == (4096, "000001", None)
    assert told["total"] == pytest.approx(2**18)
    assert 1 < told["perplexity"] < 4096
    for line in (
        *("N mean 64", "N std 111.24", "N min 0.0005", "N quartiles 29.75, 48.25, 72.5", "N max 3376"),
        *("never hit 0", "dead: N < 1e-05 0", "N < 0.0001 0 (1.56e-06 of the mean)"),
        *("N < 0.001 1 (1.56e-05 of the mean)", "N < 0.1 3 (0.00156 of the mean)", "N < 1 4 (0.0156 of the mean)"),
    ):
        assert line in out.splitlines()
    _, out, _ = run("--store", store, "--dead-threshold", "0.01")
    assert "dead: N < 0.01 2" in out.splitlines()
    _, out, _ = run("--store", store, "--version", "000002")
    assert {"version 000002", "never hit 2048", "dead: N < 1e-05 2048"} <= set(out.splitlines())


def test_two_versions_are_compared(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    counts = [from_store(store, version).counts for version in ("000002", "000001")]
    scaled = [one * 2**18 / one.sum() for one in counts]
    arguments: list[str | Path] = ["--store", store, "--version", "000002", "--against-version", "000001"]
    arguments += ["--json-file", file]
    status, out, err = run(*arguments, "--max-psi", "0.25")
    assert (status, err.startswith("drift: a population stability index of ")) == (3, True)
    against = json.loads(file.read_text())["against"]
    assert against["psi"] == pytest.approx(psi(*scaled))
    assert 0.2 < against["jensen_shannon_bits"] < 0.6
    assert (against["version"], against["max_psi"], against["drifted"]) == ("000001", 0.25, True)
    assert f"population stability index {against['psi']:.6g}" in out
    assert "- codebook 000002 is compared with 000001: replaced codes mean something else" in out
    status, _, err = run(*arguments, "--max-psi", "25")
    assert (status, err, json.loads(file.read_text())["against"]["drifted"]) == (0, "", False)
    assert run(*arguments)[0] == 0


def test_what_was_written_before_is_compared_with(
    store: Path, model: Model, parquet: Path, records: list[Record], tmp_path: Path
) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    place = tmp_path / "a-model"
    assert run("--data", parquet, "--model", place, "--threads", "1", "--json-file", before, "--counts")[0] == 0
    told = json.loads(before.read_text())
    expected = np.zeros(16, np.int64)
    tokenizer = StructureTokenizer(model)
    for record in records:
        (chain,) = tokenizer.tokenize(backbone(record.coordinates, record.residue_index))
        expected += np.bincount(chain.tokens[chain.has_frame], minlength=16)
    assert told["counts"] == expected.tolist()
    assert (told["residues"], told["total"], told["version"]) == (expected.sum(), expected.sum(), "000001")
    assert told["residues"] == sum(len(record.sequence) for record in records) - 1
    assert told["dead"] == told["never_hit"] == (expected == 0).sum()
    status, out, _ = run(
        "--data", parquet, "--model", place, "--against", before, "--max-psi", "0", "--json-file", after
    )
    assert status == 0
    assert json.loads(after.read_text())["against"]["psi"] == 0
    assert f"by chance alone {15 * 2 / told['residues']:.4g}, below" in out
    status, _, err = run("--store", store, "--against", before)
    assert (status, "4096 codes cannot be compared with 16" in err) == (1, True)
    status, out, _ = run("--store", place, "--against", before)
    assert (status, f"against residues of {parquet}" in out) == (0, True)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"counts": [1, -1], "residues": 2, "version": "1", "source": ""}']
)
def test_a_file_that_holds_no_counts(store: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "other.json").write_text(content)
    status, _, err = run("--store", store, "--against", tmp_path / "other.json")
    assert (status, "holds no counts, as usage --json-file FILE --counts writes them" in err) == (1, True)
    status, _, err = run("--store", store, "--against", tmp_path / "none.json")
    assert (status, "No such file" in err) == (1, True)


def test_a_plot(store: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "new" / "tail.svg"
    assert run("--store", store, "--version", "000002", "--against-version", "000001", "--plot", drawn)[0] == 0
    text = drawn.read_text()
    assert "2048 of 4096 never hit" in text
    assert ": 0 of 4096 never hit" in text
    assert run("--store", store, "--plot", tmp_path / "tail.png")[0] == 0
    assert (tmp_path / "tail.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = run("--store", store, "--plot", tmp_path / "tail.pdf")
    assert (status, "neither .svg nor .png" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "one of --store, --prometheus, --servers, --data is wanted, not none"),
        (["--store", "a", "--data", "b"], "not --store and --data"),
        (["--store", "a", "--against", "b", "--against-version", "1"], "only one of --against,"),
        (["--store", "a", "--against-window", "7d"], "--against-window is for --prometheus, not for --store"),
        (["--store", "a", "--model", "b"], "--model is for --data"),
        (["--store", "a", "--max-psi", "0.1"], "--max-psi needs something to compare with"),
        (["--store", "a", "--against", "b", "--max-psi", "-1"], "'--max-psi': must be greater than or equal to 0"),
        (["--store", "a", "--counts"], "--counts needs --json or --json-file"),
        (["--store", "a", "--dead-threshold", "0"], "--dead-threshold must be a positive number"),
        (["--store", "a", "--step-residues", "0"], "'--step-residues': must be greater than or equal to 1"),
        (["--prometheus", "localhost:9090"], "begins with neither http:// nor https://"),
        (["--prometheus", "http://localhost", "--window", "week"], "'week' is not a duration"),
        (["--prometheus", "http://localhost", "--against-window", "0s"], "'0s' must be longer than 0"),
        (["--servers", ","], "--servers takes addresses"),
        (["--servers", "a:1,a:1"], "none of them twice"),
        (["--servers", "a:1", "--tls-key", "key.pem"], "go together"),
        (["--servers", "a:1", "--token-file", "none"], "none: No such file"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], reason: str) -> None:
    status, _, err = run(*arguments)
    words = " ".join(err.replace("│", " ").split())
    assert (status, reason in words) == (2, True), words


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    sources: list[list[str | Path]] = [
        ["--store", tmp_path],
        ["--data", tmp_path / "none"],
        ["--prometheus", f"http://127.0.0.1:{free_port()}"],
        ["--servers", "127.0.0.1:1"],
    ]
    for arguments in sources:
        status, out, err = run(*arguments)
        assert (status, out, err.startswith("error: "), err.count("\n")) == (1, "", True, 1)


class Told(codebook_pb2_grpc.CodebookServiceServicer):
    """A server that has counted; `hits` by version, and the digests of the versions."""

    def __init__(self, active: str, hits: dict[str, list[int]], digest: str = "ab") -> None:
        self.active, self.hits, self.digest = active, hits, digest

    def GetUsage(self, request: Any, context: Any) -> codebook_pb2.GetUsageResponse:  # noqa: N802
        version = request.version or self.active
        if version not in self.hits:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no codebook {version}")
        return codebook_pb2.GetUsageResponse(version=version, hits=self.hits[version])

    def GetCodebook(self, request: Any, context: Any) -> codebook_pb2.GetCodebookResponse:  # noqa: N802
        assert context.is_active()
        info = codebook_pb2.CodebookInfo(version=request.version, digest=self.digest * 32)
        return codebook_pb2.GetCodebookResponse(codebook=info, manifest="{}")


@contextmanager
def serving(*told: Told) -> Iterator[list[str]]:
    """Servers on real ports; their addresses."""
    with ExitStack() as stack:
        addresses = []
        for one in told:
            server = grpc.server(stack.enter_context(ThreadPoolExecutor(2)))
            codebook_pb2_grpc.add_CodebookServiceServicer_to_server(one, server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            server.start()
            stack.callback(lambda own: own.stop(0).wait(), server)
        yield addresses


def test_hits_of_servers_are_added() -> None:
    # Nothing else is called of them.
    first = Told("000002", {"000001": [1, 1, 1], "000002": [0, 5, 20]})  # type: ignore[abstract]
    second = Told("000002", {"000001": [2, 0, 0], "000002": [0, 7, 8]})  # type: ignore[abstract]
    with serving(first, second) as addresses:
        told = from_servers(addresses)
        assert (told.counts.tolist(), told.residues, told.version) == ([0, 12, 28], 40, "000002")
        assert from_servers(addresses, "000001").counts.tolist() == [3, 1, 1]
        status, out, _ = run("--servers", ", ".join(addresses), "--against-version", "000001")
        assert (status, {"version 000002", "never hit 1", "dead: N < 1e-05 1"} <= set(out.splitlines())) == (0, True)
        second.active = "000001"
        with pytest.raises(UsageUnknown, match="do not serve one codebook"):
            from_servers(addresses)
        assert from_servers(addresses, "000002").residues == 40
        with pytest.raises(UsageUnknown, match=f"{addresses[0]}: there is no codebook 000003"):
            from_servers(addresses, "000003")
        # The same name is not the same codebook.
        second.active, second.digest = "000002", "cd"
        with pytest.raises(UsageUnknown, match=r"000002 \(abababababab\), .*: 000002 \(cdcdcdcdcdcd\)"):
            from_servers(addresses)
        second.digest, second.hits["000002"] = "ab", [1, 2]
        with pytest.raises(UsageUnknown, match="do not serve one codebook"):
            from_servers(addresses)
    for wrong in ([], ["a:1", "a:1"]):
        with pytest.raises(ValueError, match="servers are addresses"):
            from_servers(wrong)


def test_a_set_of_chains_without_frames(model: Model, tmp_path: Path) -> None:
    place = tmp_path / "empty.parquet"
    write_parquet([Record("x", "AA", np.arange(2), np.full((2, 3, 3), np.nan, np.float32))], place)
    status, _, err = run("--data", place, "--model", tmp_path / "a-model")
    assert (status, "no residue with N, CA and C" in err) == (1, True)


def test_progress_and_version_of_data(model: Model, parquet: Path, codebook: Codebook, tmp_path: Path) -> None:
    place = tmp_path / "a-model"
    Store(place).publish(Codebook(*(part.flip(0) for part in codebook)), parent="000001", about={})
    seen: list[int] = []
    first = from_data(parquet, place, batch=50, report=seen.append)
    second = from_data(parquet, place, "000002")
    assert isinstance(first, CodeCounts)
    assert (sum(seen), max(seen)) == (first.residues, 50)
    assert second.counts.tolist() == first.counts[::-1].tolist()
    assert (second.version, second.residues) == ("000002", first.residues)


def test_an_empty_prometheus_by_the_command(tmp_path: Path) -> None:
    with prometheus(f"127.0.0.1:{free_port()}", tmp_path) as address:
        assert awaited(address, "vector(1)", 1) == 1
        status, _, err = run("--prometheus", f"http://{address}", "--window", "1h", "--selector", 'job="x"')
    assert (status, 'holds no foldmint_codebook_activated_timestamp_seconds{job="x"}' in err) == (1, True)
