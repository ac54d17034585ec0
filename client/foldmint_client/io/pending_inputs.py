"""The inputs of a run that are still to be tokenized."""

from collections.abc import Collection, Sequence

from foldmint_client.io.discovery import Input


class PendingInputs:
    """The inputs that are to be tokenized: those requested, without those in the output already."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = inputs
        self.skipped = 0
        self._done: set[str] | None = None

    def __contains__(self, source: object) -> bool:
        return isinstance(source, str) and any(found.may_hold(source) for found in self.inputs)

    def skip(self, done: Collection[str]) -> None:
        """Skip these sources, and repetitions of any source."""
        self._done = set(done)

    @property
    def number(self) -> int | None:
        """Number of structures; None if there are archives, which are not read yet."""
        if any(found.has_several for found in self.inputs):
            return None
        if self._done is None:
            return len(self.inputs)
        return len({found.source for found in self.inputs} - self._done)

    def wants(self, source: str) -> bool:
        """Whether to tokenize a structure; counts it if not."""
        if self._done is None:
            return True
        if source in self._done:
            self.skipped += 1
            return False
        self._done.add(source)
        return True
