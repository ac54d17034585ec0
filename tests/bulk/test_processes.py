"""Child processes are closed by any thread, and only once."""

import threading

import pytest

from foldmint_bulk.processes import Child, ChildDied


def test_threads_that_close_a_child_at_once() -> None:
    faults = list[BaseException]()

    def close(child: Child) -> None:
        try:
            child.close()
        except OSError as error:
            faults.append(error)

    for _ in range(20):
        child = Child("foldmint_bulk.no_such_module")
        threads = [threading.Thread(target=close, args=(child,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(ChildDied):
            child.receive()
    assert faults == []
