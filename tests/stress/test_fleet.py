"""Three servers of one store in S3: a canary, its promotion, a rollback and killed servers, while bulk jobs run.

No structure is lost, no job mixes versions, and no hit of one version is counted for another.
"""

import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.faults.swap import store as create_versions
from benchmarks.stress.jobs import Account, Stretch, stretches
from benchmarks.stress.servers import KillableServer
from foldmint_client import Client, Retry
from foldmint_client.admin import CodebookAdmin
from foldmint_maintenance.cli import main
from foldmint_tokenizer import StructureTokenizer
from foldmint_tokenizer.store.control import hash_of
from foldmint_tokenizer.store.model_store import Store
from helpers.forking import ForkedKillableServer
from helpers.monitoring.real_prometheus import awaited, hastened, prometheus
from helpers.support import ROOT
from helpers.waiting import wait_until

FIRST, SECOND = "000001", "000002"
STRUCTURES, IN_FLIGHT = 40, 8
# One of them is a canary at the share below.
NAMES = sorted((f"foldmint-{number}" for number in range(12)), key=hash_of)[::5]
SHARE = (hash_of(NAMES[0]) + hash_of(NAMES[1])) / 2


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the default model, whose versions have its codes in other orders."""
    return create_versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def pool(versions: Path) -> list[Stretch]:
    """Structures, with what each version gives for them in process."""
    tokenizers = {version: StructureTokenizer(Store(versions).load(version)) for version in (FIRST, SECOND)}
    return stretches((24, 32, 48), 31, tokenizers)


@pytest.fixture
def place(versions: Path, bucket: str, request: pytest.FixtureRequest) -> str:
    """A copy of the store in S3."""
    import s3fs

    there = f"{bucket}/{request.node.name}"
    s3fs.S3FileSystem().put(str(versions), there, recursive=True)
    return there


@contextmanager
def fleet(place: str) -> Iterator[list[KillableServer]]:
    """Servers with these names; the first is in the canary's share."""
    with ExitStack() as running:
        common = ("--model", place, "--poll-seconds", "0.5", "--threads", "1", "--insecure-admin")
        servers: list[KillableServer] = [ForkedKillableServer(*common, "--server-name", name) for name in NAMES]
        for server in servers:
            running.callback(server.stop)
        with ThreadPoolExecutor(len(servers)) as starting:
            list(starting.map(KillableServer.start, servers))
        yield servers


def maintain(*arguments: str) -> str:
    """The output of `foldmint-maintenance`, which must succeed."""
    result = CliRunner(env={"COLUMNS": "500"}).invoke(main.app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def change(place: str, servers: Sequence[KillableServer], *arguments: str) -> None:
    """Change what the store says, and wait until all servers follow."""
    told = ",".join(server.admin for server in servers)
    maintain("codebooks", *arguments, "--store", place, "--servers", told)


def serving(*servers: KillableServer) -> list[str]:
    """What each server serves by default."""
    served = []
    for server in servers:
        with CodebookAdmin(server.admin) as admin:
            served.append(admin.codebook().version)
    return served


@dataclass
class Job:
    """A job, what it asked for, and the versions that answers stated."""

    version: str
    account: Account
    stated: set[str] = field(default_factory=set)


class Bulk(threading.Thread):
    """A caller that runs one job after another until told to stop. version: that it pins; empty: none."""

    def __init__(self, addresses: Sequence[str], pool: Sequence[Stretch], version: str) -> None:
        super().__init__(name=f"bulk {version}", daemon=True)
        self.target, self.pool, self.version = ",".join(addresses), pool, version
        self.jobs: list[Job] = []
        self.done, self.error = 0, ""
        self.over = threading.Event()

    def run(self) -> None:
        try:
            while not self.over.is_set():
                job = Job(self.version, Account(self.pool, {}))
                self.jobs.append(job)
                with Client(self.target, retry=Retry(initial_backoff=0.2)) as client:
                    for number, result in client.tokenize_many(
                        job.account.structures(STRUCTURES), in_flight=IN_FLIGHT, codebook_version=self.version or None
                    ):
                        job.account.take(number, result)
                        job.stated.add(getattr(result, "codebook_version", ""))
                self.done += 1
        except Exception as error:  # noqa: BLE001 (a thread's errors are the test's)
            self.error = repr(error)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_and_no_job_mixes(place: str, pool: list[Stretch]) -> None:
    store = Store(place)
    with fleet(place) as servers, ExitStack() as working:
        addresses = [server.address for server in servers]
        bulks: list[Bulk] = []

        def begin(version: str, first: int) -> None:
            bulks.append(Bulk([*addresses[first:], *addresses[:first]], pool, version))
            bulks[-1].start()
            working.callback(bulks[-1].over.set)

        def await_jobs(more: int = 2) -> None:
            """Wait until each caller has begun and done so many jobs since now."""
            wanted = [bulk.done + more for bulk in bulks]
            wait_until(
                lambda: all(bulk.error or bulk.done >= least for bulk, least in zip(bulks, wanted, strict=True)), 300
            )
            assert [bulk.error for bulk in bulks] == [""] * len(bulks)

        for first in range(3):
            begin("", first)
        begin(FIRST, 0)
        begin(SECOND, 1)  # which no server has loaded
        await_jobs()
        assert serving(*servers) == [FIRST] * 3

        change(place, servers, "canary", SECOND, "--share", f"{SHARE:.6f}")
        assert serving(*servers) == [SECOND, FIRST, FIRST]
        await_jobs()
        # The canary is killed, and is one again; jobs go on elsewhere meanwhile, and with it after.
        servers[0].kill()
        await_jobs(1)
        servers[0].start()
        assert serving(*servers) == [SECOND, FIRST, FIRST]
        await_jobs()

        change(place, servers, "activate", SECOND)
        assert (serving(*servers), store.canary()) == ([SECOND] * 3, None)
        await_jobs()
        servers[1].kill()
        servers[1].start()
        assert serving(*servers) == [SECOND] * 3
        await_jobs()

        change(place, servers, "rollback", "--from", SECOND)
        assert serving(*servers) == [FIRST] * 3
        await_jobs()
        servers[2].kill()
        servers[2].start()
        assert serving(*servers) == [FIRST] * 3
        await_jobs()
        for bulk in bulks:
            bulk.over.set()
        for bulk in bulks:
            bulk.join(120)

    assert [bulk.error for bulk in bulks] == [""] * len(bulks)
    jobs = [job for bulk in bulks for job in bulk.jobs]
    assert [str(job.account) for job in jobs if not job.account.whole] == []
    assert [job.stated for job in jobs if len(job.stated) > 1] == []
    assert [job.stated for job in jobs if job.version and job.stated != {job.version}] == []
    # Callers that ask for no version had both.
    assert {version for job in jobs if not job.version for version in job.stated} == {FIRST, SECOND}


def _histogram(pool: Sequence[Stretch], version: str, times: int) -> list[int]:
    """How often each code is hit if all structures are tokenized so often."""
    codes = np.concatenate([stretch.tokens[version] for stretch in pool])
    return [int(count) * times for count in np.bincount(codes, minlength=4096)]


def _counts(*source: str) -> list[int]:
    """The codes' counts by `foldmint-maintenance usage`."""
    found: list[int] = json.loads(maintain("usage", *source, "--json", "-", "--counts"))["counts"]
    return found


def _send(servers: Sequence[KillableServer], pool: list[Stretch], version: str = "") -> None:
    """All structures to each server."""
    for server in servers:
        account = Account(pool, {})
        with Client(server.address) as client:
            for number, result in client.tokenize_many(account.structures(len(pool)), codebook_version=version or None):
                account.take(number, result)
        assert account.whole, str(account)


def _recorded(address: str, version: str) -> set[int]:
    """Codes for which the rules ever recorded hits of a version."""
    expression = f'max_over_time(code:foldmint_code_hits:increase2m{{version="{version}"}}[1h]) > 0'
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=10) as answer:
        return {int(one["metric"]["code"]) for one in json.load(answer)["data"]["result"]}


@pytest.mark.slow
def test_usage_keeps_versions_apart(place: str, pool: list[Stretch], tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    copies = hastened([ROOT / "deploy/prometheus/rules/codes.yml"], rules)
    of_servers, of_prometheus = {FIRST: 0, SECOND: 0}, {FIRST: 0, SECOND: 0}
    residues = sum(len(stretch.index) for stretch in pool)
    with fleet(place) as servers:
        told = ",".join(server.admin for server in servers)
        others = {"foldmint": [server.metrics for server in servers[1:]]}
        with prometheus(servers[0].metrics, tmp_path, copies, others) as address:
            for command, active in (
                (("canary", SECOND, "--share", f"{SHARE:.6f}"), {FIRST: 2, SECOND: 1}),
                (("activate", SECOND), {FIRST: 0, SECOND: 3}),
            ):
                change(place, servers, *command)
                # The rules count hits under a version that was active for two minutes, here two seconds.
                assert awaited(address, "count(instance:foldmint_codebook_info:settled)", 3) == 3
                # All structures to each server, by default and by each version's name. A server counts the hits of each
                # version, and shows Prometheus those of its active one.
                for version in ("", FIRST, SECOND):
                    _send(servers, pool, version)
                for version in (FIRST, SECOND):
                    of_servers[version] += active[version] + 3
                    of_prometheus[version] += 2 * active[version]
                total = residues * sum(of_prometheus.values())
                assert awaited(address, "sum(foldmint_code_hits_total)", total) == total
                for version in (FIRST, SECOND):
                    counted = _counts("--servers", told, "--version", version)
                    assert counted == _histogram(pool, version, of_servers[version])
                    counted = _counts("--prometheus", f"http://{address}", "--version", version)
                    assert counted == _histogram(pool, version, of_prometheus[version])
                    codes = {code for code, count in enumerate(counted) if count}
                    assert _recorded(address, version) <= codes
            assert _recorded(address, FIRST)
            assert _recorded(address, SECOND)
