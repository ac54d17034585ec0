"""Responses to a browser: bytes, plain and compressed, with an ETag."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Content:
    """A body with its media type. packed: gzip, or None where that saves nothing. tag: an ETag."""

    type: str
    body: bytes
    packed: bytes | None
    tag: str

    @classmethod
    def of(cls, media_type: str, body: bytes, level: int = 9) -> "Content":
        """level: of gzip, 1 to 9."""
        packed = gzip.compress(body, level, mtime=0)
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return cls(media_type, body, packed if len(packed) < len(body) else None, tag)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Content":
        """Raises ValueError for NaN and infinity, which JSON does not know."""
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        return cls.of("application/json", text.encode(), level=1)
