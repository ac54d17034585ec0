"""Inputs by URLs: found, planned and read in parts; credentials come from the environment and are written nowhere."""

import random
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import parquet

from foldmint_bulk import InvalidInput, JobOptions, create_job
from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.base import InputOptions
from foldmint_bulk.inputs.files import find_files, read_input, redacted, refuse_credentials
from foldmint_bulk.inputs.registry import kind_of
from helpers.bulk_inputs import contents, plan, read
from helpers.support import DATA

GROUPS, ROWS = 8, 100


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar and a Parquet file of 800 texts, a MiB each, which cannot be compressed, and two files."""
    folder = tmp_path_factory.mktemp("files")
    letters = random.Random(3)
    texts = [letters.randbytes(1_300) for _ in range(GROUPS * ROWS)]
    table = pa.table({"id": [f"s{row}" for row in range(len(texts))], "structure": texts, "other": texts})
    parquet.write_table(table, folder / "set.parquet", row_group_size=ROWS)
    with tarfile.open(folder / "set.tar", "w") as archive:
        for row, text in enumerate(texts[:50]):
            (folder / "one").write_bytes(text)
            archive.add(folder / "one", f"s{row}.pdb")
    (folder / "one").unlink()
    for name in ("1a8o.pdb", "1a8o.cif"):
        (folder / name).write_bytes((DATA / name).read_bytes())
    return folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of moto's server, a real one over HTTP; credentials are in the environment."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(f"inputs-{port}")
    yield f"s3://inputs-{port}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://inputs"
    fsspec.filesystem("memory").rm("/inputs", recursive=True)


@pytest.mark.parametrize("place", ["memory", "s3"])
def test_files_tars_and_parquet_by_urls(files: Path, place: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(place)
    system, _ = fsspec.core.url_to_fs(root)
    for path in files.iterdir():
        system.put_file(str(path), f"{root}/{path.name}")
    found = {Path(name).name: kind.name for name, kind in find_files([root], kind_of, Counter()) if kind}
    assert found == {"1a8o.cif": "files", "1a8o.pdb": "files", "set.parquet": "parquet", "set.tar": "tar"}
    matched = [name for name, _ in find_files([f"{root}/*.c?f", f"{root}/*.tar"], kind_of, Counter())]
    assert [read_input(name) for name in matched] == [read_input(str(files / name)) for name in ("1a8o.cif", "set.tar")]
    for kind, name in (("parquet", "set.parquet"), ("tar", "set.tar")):
        url, own = f"{root}/{name}", files / name
        units = plan(kind, url, structures=20)
        assert len(units) == len(plan(kind, own, structures=20)) > 2
        expected = {
            source.replace(str(files), root): value for source, value in contents(read(plan(kind, own))).items()
        }
        assert contents(read(units)) == expected
        assert contents(read(units[1:2])) == dict([*expected.items()][20:40])


class Ranges(BaseHTTPRequestHandler):
    """Serves files of a folder, whole or in ranges, and counts what it sends."""

    protocol_version = "HTTP/1.1"
    folder: Path
    sent = 0

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.folder / self.path.lstrip("/")
        content = path.read_bytes() if path.is_file() else None
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.send_response(404 if content is None else 206 if wanted else 200)
        content = content or b""
        part = content[int(wanted[1]) : int(wanted[2]) + 1] if wanted else content
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if wanted:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(content)}")
        self.end_headers()
        if body:
            type(self).sent += len(part)
            self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(files: Path) -> Iterator[tuple[str, type[Ranges]]]:
    handler = type("Handler", (Ranges,), {"folder": files, "sent": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_of_a_parquet_file_the_row_groups_of_a_unit_are_sent(files: Path, web: tuple[str, type[Ranges]]) -> None:
    url, handler = web
    size = (files / "set.parquet").stat().st_size
    units = plan("parquet", f"{url}/set.parquet", structures=ROWS)
    assert len(units) == GROUPS
    planned = handler.sent
    assert planned < size / 5
    assert len(read(units[3:4])) == ROWS
    # One of two columns of a row group, and the footer.
    assert handler.sent - planned < size / GROUPS / 2 + planned


def test_a_url_that_is_not_there(web: tuple[str, type[Ranges]]) -> None:
    url, _ = web
    with pytest.raises(InvalidInput, match=r"none\.tar: no such file"):
        next(find_files([f"{url}/none.tar"], kind_of, Counter()))
    (unit,) = plan("tar", f"{url}/none.tar")
    with pytest.raises(UnreadableInput, match=r"none\.tar"):
        read([unit])


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/set.tar",
        "https://secret@example.org/set.tar",
        "https://example.org/set.tar?X-Amz-Signature=secret",
        "simplecache::https://example.org/set.tar?token=secret",
        "s3://bucket/set.tar?versionId=secret",
    ],
)
def test_credentials_are_not_written(tmp_path: Path, url: str) -> None:
    for inputs, options in (
        ([url], JobOptions()),
        ([str(DATA / "1a8o.pdb")], JobOptions(inputs=InputOptions(topology=url))),
    ):
        with pytest.raises(InvalidInput, match="credentials come from the environment") as raised:
            create_job(inputs, str(tmp_path / "out"), options=options)
        assert "secret" not in str(raised.value)
    assert not (tmp_path / "out" / "job.json").exists()


def test_urls_and_patterns_without_credentials() -> None:
    for url in ("s3://bucket/a@b/*.cif", "s3://bucket/model_?.cif", "gs://bucket/set.tar", "/a?b=c/d.pdb", "a@b.pdb"):
        refuse_credentials(url)


def test_messages_without_credentials() -> None:
    text = "403, url='https://user:pass@example.org/set.tar?X-Amz-Signature=abc', of s3://key:word@bucket/x"
    assert redacted(text) == "403, url='https://example.org/set.tar', of s3://bucket/x"


def test_without_the_package_of_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InvalidInput, match=r"gs://bucket/set\.tar: .*gcsfs"):
        next(find_files(["gs://bucket/set.tar"], kind_of, Counter()))
