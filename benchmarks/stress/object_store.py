"""A small object store with S3's interface, which can be filled with millions of keys at once.

    python -m benchmarks.stress.object_store UNITS RECORD PART SUMMARY FULL_SHARDS

It prints its address, and serves one bucket until it is killed. Lists are as long as S3's, of 1,000 keys; it has what
`foldmint_bulk` needs: lists, and objects that are read, written (also with If-None-Match), and removed.
"""

import bisect
import re
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from foldmint_bulk.unit import SHARD, unit_id

BUCKET = "bucket"
_KEYS = 1_000
_DATE = "2026-01-01T00:00:00.000Z"


class Objects:
    """Keys in order, and contents."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self._keys: list[str] = []
        self.requests = 0
        self._lock = threading.Lock()

    def fill(self, contents: dict[str, bytes]) -> None:
        """Add many at once."""
        with self._lock:
            self.contents |= contents
            self._keys = sorted(self.contents)

    def put(self, key: str, content: bytes, *, new: bool) -> bool:
        """Write one; false if it is to be new, and is there."""
        with self._lock:
            if key not in self.contents:
                bisect.insort(self._keys, key)
            elif new:
                return False
            self.contents[key] = content
            return True

    def remove(self, key: str) -> None:
        """Remove one, if it is there."""
        with self._lock:
            if self.contents.pop(key, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, key)]

    def listed(self, prefix: str, delimiter: str, after: str) -> tuple[list[str], list[str], str]:
        """Keys, common prefixes, and after what the next list begins; empty at the end."""
        keys, folders = list[str](), list[str]()
        with self._lock:
            place = bisect.bisect_left(self._keys, prefix) if not after else bisect.bisect_right(self._keys, after)
            while place < len(self._keys) and len(keys) + len(folders) < _KEYS:
                key = self._keys[place]
                if not key.startswith(prefix):
                    return keys, folders, ""
                end = key.find(delimiter, len(prefix)) if delimiter else -1
                if end < 0:
                    keys.append(key)
                    place, last = place + 1, key
                else:
                    folders.append(key[: end + 1])
                    last = key[: end + 1] + "\U0010ffff"
                    place = bisect.bisect_right(self._keys, last)
            more = place < len(self._keys) and self._keys[place].startswith(prefix)
            return keys, folders, last if more else ""


class Handler(BaseHTTPRequestHandler):
    """Answers S3's requests, by path."""

    objects: ClassVar[Objects]
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """An object, or a list."""
        key, query = self._asked()
        if not key:
            self._list(query)
            return
        content = self.objects.contents.get(key)
        if content is None:
            self._answer(HTTPStatus.NOT_FOUND, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found is not None:
            start, stop = int(found[1]), int(found[2] or len(content)) + 1
            self._answer(HTTPStatus.PARTIAL_CONTENT, content[start:stop])
        else:
            self._answer(HTTPStatus.OK, content)

    def do_HEAD(self) -> None:
        """Whether there is an object."""
        key, _ = self._asked()
        content = self.objects.contents.get(key)
        self.send_response(HTTPStatus.OK if content is not None or not key else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"0"')
        self.end_headers()

    def do_PUT(self) -> None:
        """Write an object."""
        key, _ = self._asked()
        new = self.headers.get("If-None-Match") == "*"
        if not key or self.objects.put(key, self._body(), new=new):
            self._answer(HTTPStatus.OK, b"")
        else:
            self._answer(HTTPStatus.PRECONDITION_FAILED, b"<Error><Code>PreconditionFailed</Code></Error>")

    def do_POST(self) -> None:
        """Remove objects."""
        self._asked()
        keys = re.findall(r"<Key>(.*?)</Key>", self._body().decode())
        for key in keys:
            self.objects.remove(key)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(HTTPStatus.OK, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def handle_expect_100(self) -> bool:
        """Ask for the body at once."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix, delimiter, after = (query.get(name, [""])[0] for name in ("prefix", "delimiter", "continuation-token"))
        keys, folders, following = self.objects.listed(prefix, delimiter, after)
        parts = [
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_DATE}</LastModified><ETag>&quot;0&quot;</ETag>"
            f"<Size>{len(self.objects.contents.get(key, b''))}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in keys
        ]
        parts += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        if following:
            parts.append(f"<NextContinuationToken>{escape(following)}</NextContinuationToken>")
        head = f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(keys) + len(folders)}</KeyCount>"
        head += f"<MaxKeys>{_KEYS}</MaxKeys><IsTruncated>{str(bool(following)).lower()}</IsTruncated>"
        name = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        self._answer(HTTPStatus.OK, f"<ListBucketResult {name}>{head}{''.join(parts)}</ListBucketResult>".encode())

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        self.objects.requests += 1
        url = urlsplit(self.path)
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        return key, parse_qs(url.query, keep_blank_values=True)

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return body
        plain, rest = b"", body
        while rest:
            head, _, rest = rest.partition(b"\r\n")
            size = int(head.partition(b";")[0] or b"0", 16)
            if not size:
                break
            plain, rest = plain + rest[:size], rest[size + 2 :]
        return plain

    def _answer(self, status: HTTPStatus, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"0"')
        self.end_headers()
        self.wfile.write(content)


def main(units: int, record: Path, part: Path, summary: Path, full: int) -> None:
    """Serve a job of so many units, all recorded, of which so many shards have a summary."""
    objects = Handler.objects = Objects()
    contents = dict[str, bytes]()
    template, some, whole = record.read_text(), part.read_bytes(), summary.read_text()
    for number in range(units):
        own = unit_id(number)
        shard = number // SHARD
        contents[f"out/units/{own}.json"] = b"" if shard < full else template.replace("0000/000", own).encode()
        contents[f"out/parts/{own}.attempt.parquet"] = some
    for shard in range(full):
        contents[f"out/summaries/{shard:04d}.json"] = renumbered(whole, shard)
    objects.fill(contents)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


def renumbered(summary: str, shard: int) -> bytes:
    """The summary of shard 0 as that of another one."""
    return re.sub(
        r'"(\d+)": "attempt"', lambda found: f'"{int(found[1]) + shard * SHARD}": "attempt"', summary
    ).encode()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
