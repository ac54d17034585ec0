"""What a server's start creates is left out of garbage collection; what comes later is collected."""

from helpers.fresh_imports import imported_by

CODE = """
import gc
from foldmint_server.garbage_collection import without_collection

with without_collection():
    assert not gc.isenabled()
    kept = [[] for _ in range(10_000)]
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000
later = []
later.append(later)
del later
assert gc.collect() > 0
"""


def test_what_exists_at_the_end_is_frozen_and_later_garbage_is_collected() -> None:
    assert "foldmint_server.garbage_collection" in imported_by(CODE)
