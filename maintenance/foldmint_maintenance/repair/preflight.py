"""Whatever can fail cheaply, checked before the first minute of work: store, disk, servers, data.

Nothing is changed: servers are asked by calls that need the scopes of a swap and do nothing, and the object that is
written to a store that is not a folder is removed again. All problems are found at once, each with what to do.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from foldmint.v1 import tokenizer_pb2_grpc
from foldmint_client import Client, FoldmintError
from foldmint_client.admin import CodebookAdmin
from foldmint_client.cli.diagnosis import connection_fault
from foldmint_client.connection import Connection, ConnectionOptions
from foldmint_client.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from foldmint_client.transport.channels import open_channel
from foldmint_client.transport.status import translated
from foldmint_maintenance.datasets.loading import read_set
from foldmint_maintenance.errors import InvalidSet, PreflightFailed
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.inputs import entry_fraction, gate_share, gates_fault
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.store.model_store import Store
from foldmint_tokenizer.store.storage import Files

_SECONDS = 10.0  # that a server may take to answer
# Of the disk, beside twice the active version.
_SPARE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what to do."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass
class Findings:
    """What a preflight found. problems: with these the job would fail; warnings: with these it would not."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def add(self, what: str, remedy: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(what, remedy))

    def warn(self, what: str, remedy: str) -> None:
        """Note a warning."""
        self.warnings.append(Problem(what, remedy))

    def check(self) -> None:
        """Raise PreflightFailed if there are problems; its message lists all of them."""
        if self.problems:
            listed = "\n".join(f"- {problem}" for problem in self.problems)
            number = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
            raise PreflightFailed(f"the repair was not begun, {number} found:\n{listed}")


Check = Callable[[Findings], None]


def preflight(job: RepairJob, counted_by: Sequence[str] = (), checks: Iterable[Check] = ()) -> Findings:
    """What would make a job fail. counted_by: servers whose hits are counted. checks: others, of the caller's."""
    found = Findings()
    store = _store(job, found)
    _servers(job, store, tuple(counted_by), found)
    _data(job, store, found)
    for check in checks:
        check(found)
    return found


def writable(path: Path) -> bool:
    """Whether a file can be written there, as far as permissions show; folders that are missing would be made."""
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        return False
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def check_outputs(files: Iterable[tuple[str, Path | None]], *, required: bool = True) -> Check:
    """A check that files can be written. files: options and what they name. required: whether it is needed."""

    def check(found: Findings) -> None:
        for option, path in files:
            if path is not None and not writable(path):
                note = found.add if required else found.warn
                note(f"{option}: {path} cannot be written", "name a file in a folder that this user may write to")

    return check


def _store(job: RepairJob, found: Findings) -> Store | None:
    """The store, if it is one and can be read."""
    try:
        store = Store(job.store)
        about = store.about()
        active = store.codebook()
    except ModelError as error:
        found.add(f"--store: {error}", "name the folder or URL of a model's store, which has a model.json")
        return None
    if "sizes" not in about:
        found.add(f"--store: {job.store} has no sizes in model.json", "restore model.json")
    local = _local(store.files)
    if local is None:
        _prove_writable(store.files, found)
        return store
    folders = [local, *(local / name for name in ("codebooks", "LOCK") if (local / name).exists())]
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            found.add(
                f"--store: {folder} cannot be written", "run as a user who may write to the store, or mount it so"
            )
    version = local / "codebooks" / active.version
    needed = 2 * sum(file.stat().st_size for file in version.iterdir()) + _SPARE_BYTES
    free = shutil.disk_usage(local).free
    if free < needed:
        found.add(
            f"--store: {free / 2**20:.0f} MiB are free at {local}, and {needed / 2**20:.0f} are needed",
            "make room; `foldmint-maintenance codebooks prune` removes old versions",
        )
    return store


def _prove_writable(files: Files, found: Findings) -> None:
    """Write and remove an object beside the versions: permissions of a bucket show in no other way."""
    name = f"codebooks/.preflight-{uuid.uuid4().hex}"
    steps: dict[str, Callable[[], None]] = {
        "written": lambda: files.write(name, b""),
        "removed from": lambda: files.remove(name),
    }
    for what, act in steps.items():
        try:
            act()
        except OSError as error:
            found.add(
                f"--store: {files} cannot be {what}: {error}",
                "use credentials that may read, list, write and delete its objects",
            )
            return


def _local(files: Files) -> Path | None:
    """The folder of a store; None if it is elsewhere than on a mounted disk."""
    path = Path(files.location.removeprefix("file://"))
    return path if path.is_dir() else None


def _servers(job: RepairJob, store: Store | None, counted_by: Sequence[str], found: Findings) -> None:
    """Ask all servers at once, each on its own."""
    addresses = list(dict.fromkeys((*job.activate, *job.servers, *counted_by)))
    options = {"timeout": _SECONDS, **job.connection}

    def asked(address: str) -> Findings:
        own = Findings()
        _server(address, job, store, own, options)  # type: ignore[arg-type]  # a TypedDict with one key more
        return own

    if addresses:
        with ThreadPoolExecutor(len(addresses)) as threads:
            for own in threads.map(asked, addresses):
                found.problems += own.problems
                found.warnings += own.warnings


def _server(address: str, job: RepairJob, store: Store | None, found: Findings, options: ConnectionOptions) -> None:
    """What of a server stands in the way."""
    option = "--activate" if address in job.activate else "--from-servers" if address in job.servers else "--servers"
    name = f"{option}: {address}"
    try:
        with Client(address, **options) as client:
            served = client.model().encoder_digest
    except FoldmintError as error:
        found.add(f"{name} {_said(error, address, options)}", _remedy(error))
        return
    with CodebookAdmin(address, **options) as admin:
        for what, ask in _scope_probes(address, job, admin, options):
            try:
                ask()
            except (Unauthenticated, PermissionDenied) as error:
                found.add(f"{name} does not let this job {what} ({error})", _remedy(error))
            except FailedPrecondition as error:
                if what == "take vectors":
                    found.add(f"{name} {_said(error, address, options)}", "start it with --reservoir N, or use --data")
            except FoldmintError as error:
                found.add(f"{name} {_said(error, address, options)}", _remedy(error))
        if store is not None:
            _same_store(name, served, admin, store, found)


def _scope_probes(
    address: str, job: RepairJob, admin: CodebookAdmin, options: ConnectionOptions
) -> Iterator[tuple[str, Callable[[], object]]]:
    """What the job will do at a server, and a call that is let in if that will be, and changes nothing."""
    yield "read usage and versions", admin.codebook
    if address in job.servers:
        yield "take vectors", lambda: admin.sample(1)
    elif address in job.activate:
        yield "swap the codebook", lambda: admin.sample(1)
    if address in job.activate:
        yield "tokenize the canary", lambda: _empty_stream(address, options)


def _empty_stream(address: str, options: ConnectionOptions) -> None:
    """Open a stream of structures and end it without one."""
    connection = Connection(address, **options)
    channel = open_channel(connection)
    try:
        with translated():
            calls = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
            for _ in calls.TokenizeStream(iter(()), timeout=_SECONDS, metadata=connection.metadata()):
                pass
    finally:
        channel.close()


def _same_store(name: str, encoder: str, admin: CodebookAdmin, store: Store, found: Findings) -> None:
    """Whether a server follows this store, as far as encoder and versions show."""
    if encoder != store.about().get("encoder_sha256"):
        found.add(f"{name} serves another encoder than {store.files} has", "name a server of this store's model")
        return
    active = store.active()
    try:
        known = {info.version: info for info in admin.codebooks()}
    except FoldmintError:
        return  # reported above
    missing = [version for version in store.versions() if version not in known]
    digest = str(store.manifest(active).get("codebook_sha256"))
    other = active in known and known[active].digest not in ("", digest)
    if missing or other:
        why = f"its codebook {active} is another" if other else f"it does not know codebook {missing[-1]}"
        found.add(f"{name} does not follow {store.files}: {why}", "start it with --model of this store")
        return
    serving = next((info.version for info in known.values() if info.active), active)
    if serving != active:
        found.warn(
            f"{name} serves codebook {serving}, and {active} is active in the store",
            "it will serve what is active once it follows the store, or after a restart",
        )


def _said(error: FoldmintError, address: str, options: ConnectionOptions) -> str:
    text = connection_fault(error, address, options.get("tls"), "--admin-listen")
    known = isinstance(error, (Unauthenticated, PermissionDenied, FailedPrecondition))
    return f"refuses: {text}" if known else f"cannot be asked: {text}"


def _remedy(error: FoldmintError) -> str:
    if isinstance(error, Unauthenticated):
        return "send a token of the scopes tokenize, read and admin (--token-file)"
    if isinstance(error, PermissionDenied):
        return (
            "give the token the scopes tokenize, read and admin, or start the server with --tokens-file or "
            "--insecure-admin (docs/security.md)"
        )
    return "check that it runs, the address of its --admin-listen, and whether it wants --tls"


def _data(job: RepairJob, store: Store | None, found: Findings) -> None:
    """Read as much of the sets as it takes to know that they suffice."""
    if job.data is None:
        return
    codes = 0
    if store is not None:
        codes = int(store.about().get("sizes", {}).get("codes", 0))
    repair: _Size | None
    gates: _Size | None
    try:
        repair, gates = _sizes(job.data, job.config, codes, whole=job.gate_data is not None)
    except (InvalidSet, OSError) as error:
        found.add(f"--data: {error}", "name a Parquet set, packed corpus, or folder of structure files")
        repair = gates = None
    if repair is not None and not job.config.force and repair.residues < min(codes, job.config.residues):
        found.add(
            f"--data: {job.data} has {repair.residues} residues to repair on, and the codebook has {codes} codes",
            "use more chains, at least as many residues as codes",
        )
    option = "--data"
    if job.gate_data is not None:
        option = "--gate-data"
        try:
            gates, _ = _sizes(job.gate_data, job.config, job.config.min_gate_residues, whole=True)
        except (InvalidSet, OSError) as error:
            found.add(f"--gate-data: {error}", "name a set as for --data")
            gates = None
    fault = None if gates is None else gates_fault(gates.chains, gates.residues, job.config)
    if fault is not None:
        found.add(f"{option}: {fault}", "give a larger --gate-data, or more --data; --force goes on with what there is")


@dataclass
class _Size:
    chains: int = 0
    residues: int = 0


def _sizes(path: Path, config: RepairConfig, residues: int, *, whole: bool) -> tuple[_Size, _Size]:
    """Chains to repair on, and those for the gates, of as much of a set as shows that both suffice.

    whole: nothing is kept for the gates. residues: that the first are to have.
    """
    chains: list[tuple[float, int]] = []
    first, gates = _Size(), _Size()
    for record in read_set(path, lambda *_: None):
        fraction, length = entry_fraction(record.id), len(record.sequence)
        chains.append((fraction, length))
        part = gates if not whole and fraction < config.gate_share else first
        part.chains, part.residues = part.chains + 1, part.residues + length
        enough = first.residues >= residues and first.chains >= (config.min_gate_chains if whole else 1)
        if enough and (whole or gates_fault(gates.chains, gates.residues, config) is None):
            return first, gates
    if whole:
        return first, gates
    share = gate_share(chains, config)
    kept = [length for fraction, length in chains if fraction < share]
    rest = [length for fraction, length in chains if fraction >= share]
    return _Size(len(rest), sum(rest)), _Size(len(kept), sum(kept))
