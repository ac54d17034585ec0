"""Propagates the caller's trace to the server; does not load OpenTelemetry itself."""

import sys

Metadata = tuple[tuple[str, str | bytes], ...]


def with_context(metadata: Metadata) -> Metadata:
    """A call's metadata, with the context of the span that the caller is in, as OpenTelemetry propagates it."""
    if "opentelemetry.trace" not in sys.modules:  # then the caller is in none
        return metadata
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return (*metadata, *((key.lower(), value) for key, value in carrier.items()))
