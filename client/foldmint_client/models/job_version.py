"""The version that all tokens of a job are of: model, encoder and codebook."""

from dataclasses import dataclass, fields
from typing import Self

ACTIVE = "ACTIVE"
"""Codebook version of a request on a stream that follows the server from one version to the next."""


@dataclass(frozen=True)
class JobVersion:
    """The version that all tokens of a job are of, as far as it is known.

    codebook_version, model: as in the tokens. codebook_digest, encoder_digest: SHA-256, in hexadecimal. Empty fields
    are not known, and any value agrees with them: older servers do not tell digests.
    """

    codebook_version: str = ""
    codebook_digest: str = ""
    encoder_digest: str = ""
    model: str = ""

    def merged(self, other: Self) -> Self:
        """The version, with what only the other one knows."""
        known = {field.name: getattr(self, field.name) or getattr(other, field.name) for field in fields(self)}
        return type(self)(**known)

    def difference(self, other: Self) -> str:
        """How another version differs from this one, for an error message; empty if it does not, or this is ACTIVE."""
        if self.codebook_version == ACTIVE:
            return ""
        for name, what in (
            ("model", "model"),
            ("codebook_version", "codebook version"),
            ("encoder_digest", "encoder digest"),
            ("codebook_digest", f"digest of codebook {other.codebook_version}"),
        ):
            wanted, found = getattr(self, name), getattr(other, name)
            if wanted and found and wanted != found:
                return f"{what} {found} instead of {wanted}"
        return ""
