"""The commands over a store's versions: what they tell, keep, remove and bring in."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from foldmint_maintenance.cli import main
from foldmint_maintenance.store.edit import imported, pruned
from foldmint_maintenance.store.listing import listed, verified
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.errors import LockLost
from foldmint_tokenizer.model import DecoderRows, Model
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store
from foldmint_tokenizer.store.storage import Files

DAY = 86_400


def _run(command: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `codebooks COMMAND`."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main.app, ["codebooks", command, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def place(decoding_model: Model, tmp_path: Path) -> Path:
    return tmp_path / "a-decoding-model"


@pytest.fixture
def store(place: Path) -> Store:
    """A store of one version, with a decoder."""
    return Store(place)


def _moved(codebook: Codebook, *codes: int) -> Codebook:
    """The codebook with some codes elsewhere, and never hit."""
    embeddings, counts, sums = (part.clone() for part in codebook)
    embeddings[list(codes)] += 100.0
    counts[list(codes)] = 0
    sums[list(codes)] = 0
    return Codebook(embeddings, counts, sums)


@pytest.fixture
def file(codebook: Codebook, tmp_path: Path) -> Path:
    """A codebook whose codes 2 and 5 are dead."""
    path = tmp_path / "codes.safetensors"
    save_file(_moved(codebook, 2, 5)._asdict(), path)
    return path


def test_an_imported_codebook_is_a_new_version_in_use(place: Path, store: Store, file: Path) -> None:
    before = int(time.time())
    status, out, err = _run("import", "--store", place, "--from", file)
    assert (status, err) == (0, "")
    assert "codebook 000002, from 000001, in use" in out
    assert (store.versions(), store.active()) == (["000001", "000002"], "000002")
    made, source = store.codebook(), load_file(file)
    for name, tensor in made.codebook._asdict().items():
        assert torch.equal(tensor, source[name])
    assert (made.windows, made.decoder_rows, made.manifest["parent"]) == (None, None, "000001")
    about = made.manifest["about"]
    assert about.keys() == {"made_by", "file_sha256", "created"}
    assert (about["made_by"], about["file_sha256"]) == ("import", hashlib.sha256(file.read_bytes()).hexdigest())
    assert time.strftime("%Y-%m-%dT", time.gmtime(before)) == about["created"][:11]
    assert about["created"].endswith("+00:00")


def test_an_import_may_stay_out_of_use(place: Path, store: Store, file: Path) -> None:
    status, out, _ = _run("import", "--store", place, "--from", file, "--no-activate")
    assert (status, "not in use" in out) == (0, True)
    assert (store.versions(), store.active()) == (["000001", "000002"], "000001")


def test_an_import_takes_what_a_version_holds_but_for_its_windows(store: Store, tmp_path: Path) -> None:
    held = store.codebook().codebook
    windows = torch.zeros(len(held.N), 9, 3, 3)
    store.publish(held, parent="000001", windows=windows, about={})
    made = imported(store, tmp_path / "a-decoding-model/codebooks/000002/codebook.safetensors")
    assert (made.version, made.windows) == ("000003", None)
    for old, new in zip(held, made.codebook, strict=True):
        assert torch.equal(old, new)


def test_half_precision_is_widened(store: Store, file: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    assert {tensor.dtype for tensor in imported(store, file).codebook} == {torch.float32}


def test_decoder_rows_go_with_codes_that_did_not_move(store: Store, file: Path) -> None:
    held, width = store.codebook().codebook, 64
    rows = DecoderRows(torch.tensor([1, 2, 7]), torch.randn(3, width))
    store.publish(held, parent="000001", decoder_rows=rows, about={})
    store.activate("000002")
    made = imported(store, file)
    assert made.decoder_rows is not None
    assert made.decoder_rows.codes.tolist() == [1, 7]
    assert torch.equal(made.decoder_rows.rows, rows.rows[[0, 2]])
    save_file(_moved(held, 1, 2, 7)._asdict(), file)
    assert imported(store, file).decoder_rows is None


def test_list_tells_of_each_version(place: Path, store: Store, file: Path, tmp_path: Path) -> None:
    imported(store, file, activate=False)
    store.files.write("codebooks/000003/codebook.safetensors", b"half")
    status, out, err = _run("list", "--store", place, "--json-file", tmp_path / "new/list.json")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    digests = [store.codebook(version).digest for version in ("000001", "000002")]
    assert lines[1] == ["000001", "0", digests[0][:12], "in", "use"]
    assert [lines[2][0], lines[2][1], *lines[2][3:]] == ["000002", "000001", "import", "2", digests[1][:12]]
    assert lines[3] == ["000003", "incomplete"]
    told = json.loads((tmp_path / "new/list.json").read_text())
    assert [(one["version"], one["parent"], one["active"], one["complete"], one["dead"]) for one in told] == [
        ("000001", None, True, True, 0),
        ("000002", "000001", False, True, 2),
        ("000003", None, False, False, None),
    ]
    assert [one["digest"] for one in told] == [*digests, None]
    assert [one.dead for one in listed(store, 1.5)] == [16, 16, None]
    (place / "codebooks/000002/codebook.safetensors").write_bytes(b"nonsense")
    status, out, err = _run("list", "--store", place)
    assert (status, "damaged" in out, "codebook.safetensors is damaged: its SHA-256" in err) == (0, True, True)


def test_show_tells_of_one_version(place: Path, store: Store, file: Path, tmp_path: Path) -> None:
    imported(store, file)
    status, out, _ = _run("show", "--store", place, "--json-file", tmp_path / "show.json")
    assert status == 0
    assert "codebook 000002, in use, from 000001" in out
    assert "16 codes of 8 dimensions, 2 dead below 1e-05" in out
    told = json.loads((tmp_path / "show.json").read_text())
    assert told["N"].pop("quartiles") == [1, 1, 1]
    assert told["N"] == pytest.approx({"mean": 0.875, "std": 0.3307, "min": 0, "max": 1}, abs=1e-4)
    assert (told["version"], told["active"], told["dead"], told["codes"]) == ("000002", True, 2, 16)
    assert told["manifest"] == store.manifest("000002")
    status, out, _ = _run("show", "--store", place, "000001")
    assert (status, "codebook 000001, from nothing" in out, "0 dead" in out) == (0, True, True)
    status, _, err = _run("show", "--store", place, "000009")
    assert (status, "000009" in err) == (1, True)


def test_verify_looks_at_all(place: Path, store: Store, file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        imported(store, file)
    store.files.write("codebooks/000004/codebook.safetensors", b"half")
    store.remove("000001")
    status, out, err = _run("verify", "--store", place, "--json-file", tmp_path / "verify.json")
    assert (status, err) == (0, "")
    assert "codebook 000002: its parent 000001 was removed" in out
    assert "codebook 000004 is incomplete: a run was killed at it, or is at it; harmless" in out
    assert f"{place} verifies: model, ACTIVE, HISTORY, CANARY, codebook 000002, codebook 000003" in out
    assert json.loads((tmp_path / "verify.json").read_text())["passed"] is True
    (place / "codebooks/000002/codebook.safetensors").write_bytes(b"")
    (place / "encoder.safetensors").unlink()
    status, _, err = _run("verify", "--store", place, "--json-file", tmp_path / "verify.json")
    assert status == 1
    assert [line.split(": ")[1] for line in err.splitlines()[:2]] == ["model", "codebook 000002"]
    assert "2 of 6 parts are bad" in err
    assert len(json.loads((tmp_path / "verify.json").read_text())["problems"]) == 2
    assert verified(store, ["000003"]).checked == ("model", "ACTIVE", "HISTORY", "CANARY", "codebook 000003")


class _Pruning(Files):
    """Files of a store that another run prunes while it is read."""

    def read(self, name: str) -> bytes:
        if name == "codebooks/000002/codebook.safetensors":
            Store(self.location).remove("000002")
        return super().read(name)


def test_a_version_that_is_removed_while_it_is_verified_is_no_fault(store: Store, file: Path) -> None:
    for _ in range(2):
        imported(store, file)
    store.files = _Pruning(store.files.location)
    found = verified(store)
    assert (found.problems, "codebook 000002 was removed meanwhile" in found.notes) == ((), True)
    assert verified(store, ["000002"]).problems[0].startswith("codebook 000002: ")


def _aged(path: Path, seconds: float) -> None:
    for one in (path, *path.rglob("*")):
        os.utime(one, (time.time() - seconds,) * 2)


def test_prune_keeps_the_newest_the_active_and_its_parent(place: Path, store: Store, file: Path) -> None:
    for _ in range(5):
        imported(store, file, activate=False)
    store.publish(store.codebook().codebook, parent="000002", about={})
    store.activate("000007")
    imported(store, file, activate=False)
    arguments = ("prune", "--store", place, "--keep", "1")
    status, out, _ = _run(*arguments, "--dry-run")
    assert status == 0
    removed = ["000003", "000004", "000005", "000006"]
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("would remove")] == removed
    assert len(store.versions()) == 8
    status, out, _ = _run(*arguments)
    assert status == 0
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("removed codebook")] == removed
    assert "kept codebook 000007: it is in use" in out
    assert "kept codebook 000002: 000007, which is in use, was made from it" in out
    assert "kept codebook 000001: a rollback goes back to it" in out
    left = ["000001", "000002", "000007", "000008"]
    assert store.versions() == left
    assert verified(store).problems == ()
    assert sorted(path.name for path in (place / "codebooks").iterdir()) == left
    assert "nothing to remove" in _run("prune", "--store", place, "--keep", "9")[1]


def test_prune_takes_what_killed_runs_left_a_day_ago(place: Path, store: Store) -> None:
    for version in ("000002", "000003"):
        store.files.write(f"codebooks/{version}/codebook.safetensors", b"half")
    old = place / "codebooks/000001" / f".manifest.json.{'0' * 32}.part"
    fresh = place / f".ACTIVE.{'1' * 32}.part"
    for part in (old, fresh):
        part.write_bytes(b"half")
    _aged(place / "codebooks/000002", DAY + 60)
    _aged(place / "codebooks/000003", DAY - 60)
    _aged(old, DAY + 60)
    done = pruned(store, 1)
    assert (done.removed, done.incomplete, done.parts) == ((), ("000002",), (f"codebooks/000001/{old.name}",))
    assert store.incomplete() == ["000003"]
    assert (old.exists(), fresh.exists()) == (False, True)
    assert _run("prune", "--store", place, "--keep", "1", "--incomplete")[0] == 0
    assert store.incomplete() == []
    assert verified(store).problems == ()


def test_prune_in_s3(bucket: str, place: Path, tmp_path: Path, file: Path) -> None:
    store = Store(f"{bucket}/{tmp_path.name}")
    for path in place.rglob("*"):
        if path.is_file():
            store.files.write(str(path.relative_to(place)), path.read_bytes())
    for _ in range(3):
        imported(store, file)
    store.files.write("codebooks/000005/codebook.safetensors", b"half")
    status, out, _ = _run("prune", "--store", f"{bucket}/{tmp_path.name}", "--keep", "1")
    assert (status, "kept codebook 000005: it is incomplete" in out) == (0, True)
    assert (store.versions(), store.incomplete()) == (["000003", "000004"], ["000005"])
    assert pruned(store, 1, clock=lambda: time.time() + DAY + 60).incomplete == ("000005",)
    assert _run("verify", "--store", f"{bucket}/{tmp_path.name}")[0] == 0


@pytest.mark.parametrize("command", [("import", "--from", "file"), ("prune", "--keep", "1")])
def test_what_changes_a_store_takes_its_lock(command: tuple[str, ...], place: Path, store: Store, file: Path) -> None:
    arguments = [str(file) if word == "file" else word for word in command]
    with StoreLock(store.files):
        status, _, err = _run(arguments[0], "--store", place, *arguments[1:])
        assert (status, f"{place} is locked by process {os.getpid()}" in err) == (4, True)
        assert _run("prune", "--store", place, "--keep", "1", "--dry-run")[0] == 0
        assert _run("verify", "--store", place)[0] == 0
        assert _run("list", "--store", place)[0] == 0
    assert store.versions() == ["000001"]
    assert _run(arguments[0], "--store", place, *arguments[1:])[0] == 0
    with StoreLock(store.files) as lock:
        lock.check()


class _Overtaken(Files):
    """Files of a store whose lock another run takes over once a file was read or created."""

    at = ""

    def read(self, name: str) -> bytes:
        content = super().read(name)
        self._take(name)
        return content

    def create(self, name: str, content: bytes) -> None:
        super().create(name, content)
        self._take(name)

    def _take(self, name: str) -> None:
        if name == self.at:
            self.write("LOCK/000099.json", b"another run's")


# Before which change the lock is lost, and what was done last before it.
LOSSES = {
    "publish": "codebooks/000003/codebook.safetensors",
    "activate": "codebooks/000004/manifest.json",
    "remove": "codebooks/000003/manifest.json",
}


@pytest.mark.parametrize("change", LOSSES)
def test_nothing_is_changed_under_a_lock_that_was_lost(change: str, store: Store, file: Path) -> None:
    for _ in range(2):
        imported(store, file)
    files = store.files
    store.files = _Overtaken(files.location)
    store.files.at = LOSSES[change]
    with pytest.raises(LockLost):
        _ = pruned(store, 1) if change == "remove" else imported(store, file)
    store.files = files
    published = ["000004"] if change == "activate" else []
    assert (store.versions(), store.active()) == (["000001", "000002", "000003", *published], "000003")


@pytest.mark.parametrize("keep", ["0", "-3", "many"])
def test_prune_keeps_at_least_one(keep: str, place: Path) -> None:
    assert _run("prune", "--store", place, "--keep", keep)[0] == 2


@pytest.mark.parametrize("command", [("list",), ("show",), ("verify",), ("prune", "--keep", "2")])
def test_what_is_no_store_is_told(command: tuple[str, ...], tmp_path: Path) -> None:
    status, _, err = _run(command[0], "--store", tmp_path / "nothing", *command[1:])
    assert (status, "cannot be read" in err) == (1, True)
