"""Versions of the codebook: which is active, which are kept, and how one takes the place of another.

A version is loaded, verified and warmed in a thread of its own. Then one reference changes in the event loop: a request
has either the version before or the one after, and keeps it. Which version is to be served, `store_follower` decides.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_server.errors import CodebookRejected, UnknownVersion
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.registry import Metrics
from foldmint_tokenizer import ModelError, StructureDetokenizer
from foldmint_tokenizer.detokenizer import DecoderInputs
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.motion.assignment import Coding
from foldmint_tokenizer.store.model_store import Store

log = structlog.get_logger(__name__)


class LoadedCodebook(NamedTuple):
    """One version of model and codebook; a structure keeps the one that it was admitted under.

    embeddings: (codes, out), on each device. N: (codes,), the codes' moving averages of hits. frameless: the code of
    residues without a frame. codes: how many.
    decoder_inputs: what the decoder reads of it; None without a decoder. coding: what assignment needs; None of models
    whose codes do not encode motions. manifest: of the version.
    """

    model: str
    encoder_digest: str
    codebook_version: str
    codebook_digest: str
    embeddings: Sequence[Tensor]
    N: NDArray[np.float32]
    frameless: int
    codes: int
    decoder_inputs: DecoderInputs | None
    coding: Coding | None
    manifest: Mapping[str, Any]


class Swap(NamedTuple):
    """What is active, and the version that was active before."""

    active: LoadedCodebook
    previous: str


class CodebookLoader:
    """Makes versions of a model's codebook ready on the devices of some engines."""

    def __init__(self, model: Model, engines: Sequence[Engine], detokenizer: StructureDetokenizer | None) -> None:
        self._model, self._engines, self._detokenizer = model, engines, detokenizer

    def __call__(self, codebook: CodebookVersion) -> LoadedCodebook:
        """The version, with its vectors on each device, after a first quantization.

        Raises ModelError if it belongs to another encoder or decoder than this server's, or its vectors are so large
        that distances to them are not finite. The store compares it with its own files, which may have been exchanged.
        """
        model, manifest, version = self._model, codebook.manifest, codebook.version
        if manifest.get("encoder_sha256") != model.encoder_digest:
            raise ModelError(f"codebook {version} belongs to another encoder than this server runs")
        if codebook.decoder_rows is not None and manifest.get("decoder_sha256") != model.decoder_digest:
            raise ModelError(f"codebook {version} belongs to another decoder than this server runs")
        vectors = codebook.codebook.embeddings
        if not torch.isfinite(vectors.square().sum(1)).all():
            raise ModelError(f"codebook {version}: its vectors are too large for distances to them to be finite")
        embeddings = [vectors.to(engine.device) for engine in self._engines]
        return LoadedCodebook(
            model.name,
            model.encoder_digest,
            version,
            codebook.digest,
            embeddings,
            codebook.codebook.N.numpy(),
            self._engines[0].frameless_code(embeddings[0]),
            model.config.codes,
            None if self._detokenizer is None else self._detokenizer.inputs_of(codebook),
            None if model.lever is None else Coding.of(vectors, model.lever),
            manifest,
        )


class CodebookManager:
    """The versions that a server has; all methods but the constructor are called from one event loop.

    active: what requests get that ask for no version. activated: when each version was activated last, in seconds since
    1970.
    """

    def __init__(
        self,
        store: Store,
        first: CodebookVersion,
        warm: Callable[[CodebookVersion], LoadedCodebook],
        keep: int,
        usage: CodeUsage,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """first: the version to begin with. keep: how many versions are kept at most, the active one among them."""
        self.store = store
        self.activated: dict[str, float] = {}
        self._warm, self._keep, self._clock = warm, keep, clock
        self._usage, self._metrics = usage, metrics
        self._kept: dict[str, LoadedCodebook] = {}  # the last to be activated or requested comes last
        self._protected: frozenset[str] = frozenset()
        self._thread = ThreadPoolExecutor(1, "codebooks")
        self.active = warm(first)
        self._set_active(self.active)

    @property
    def kept(self) -> Mapping[str, LoadedCodebook]:
        """The versions that requests may ask for."""
        return self._kept

    async def load(self, version: str, *, quiet: bool = False) -> LoadedCodebook:
        """A version, warm: one that is kept, or from the store; nothing is served otherwise.

        Raises UnknownVersion if neither server nor store has it, CodebookRejected with the reason if it cannot be used;
        that is logged and counted. quiet: but for a store that cannot be reached, since that was logged before.
        """
        if version in self._kept:
            return self._kept[version]
        try:
            return await self.fetch(version)
        except (UnknownVersion, CodebookRejected) as error:
            if not (quiet and isinstance(error, CodebookRejected) and error.unreachable):
                self._record_rejection(version, str(error))
            raise

    async def fetch(self, version: str) -> LoadedCodebook:
        """A version of the store, warm. Raises as `load` does, and logs and counts nothing."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._load_from_store, version)

    async def stored_versions(self) -> frozenset[str]:
        """The complete versions of the store. Raises CodebookRejected if it cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._list_store)

    def swap(self, loaded: LoadedCodebook, outcome: str) -> Swap:
        """Let a loaded version be the active one; nothing changes where it is. outcome: activated or rolled_back."""
        before = self.active
        if loaded.codebook_version == before.codebook_version:
            return Swap(before, before.codebook_version)
        self._set_active(loaded)
        self._metrics.codebook_swaps.labels(outcome).inc()
        log.info("codebook swapped", outcome=outcome, version=loaded.codebook_version, previous=before.codebook_version)
        return Swap(loaded, before.codebook_version)

    def has_room(self, in_use: Collection[str]) -> bool:
        """Whether another version can be kept without dropping one of these."""
        return len(self._kept) < self._keep or bool(self._droppable(in_use))

    def keep(self, loaded: LoadedCodebook, in_use: Collection[str] = ()) -> None:
        """Keep a version for requests that ask for it, though it was never active here. in_use: others not to drop."""
        self._kept.setdefault(loaded.codebook_version, loaded)
        self._usage.keep(loaded.codebook_version, self._clock())
        self._drop({loaded.codebook_version, *in_use})

    def touch(self, version: str) -> None:
        """Note that a version was requested: of those kept, it is dropped last."""
        if version in self._kept:
            self._kept[version] = self._kept.pop(version)

    def protect(self, versions: Collection[str]) -> None:
        """Never drop these versions, beside the active one, even if `keep` versions are fewer."""
        self._protected = frozenset(versions)
        self._drop()

    def close(self) -> None:
        """End the thread after what it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _record_rejection(self, version: str, reason: str) -> None:
        self._metrics.codebook_swaps.labels("refused").inc()
        serving = self.active.codebook_version
        log.error("codebook refused", version=version[:100], reason=reason, serving=serving)

    def _list_store(self) -> frozenset[str]:
        """The store's versions; in the thread."""
        try:
            self.store.about()  # a store that is gone is not an empty one
            return frozenset(self.store.versions())
        except ModelError as error:
            raise CodebookRejected(str(error), unreachable=unreachable(error)) from error

    def _load_from_store(self, version: str) -> LoadedCodebook:
        """A version of the store; in the thread."""
        try:
            self.store.about()  # a store that is gone is not one without this version
            if version not in self.store.versions():
                if version in self.store.incomplete():
                    raise CodebookRejected(f"codebook {version} is incomplete: it has no manifest")
                raise UnknownVersion(f"neither the server nor its store has a codebook {version[:100]!r}")
            return self._warm(self.store.codebook(version))
        except ModelError as error:
            raise CodebookRejected(str(error), unreachable=unreachable(error)) from error

    def _set_active(self, loaded: LoadedCodebook) -> None:
        """The one moment in which another version becomes the active one: nothing else runs in the loop meanwhile."""
        before, self.active = self.active, loaded
        version, now = loaded.codebook_version, self._clock()
        self._usage.activate(version, now)
        self.activated[version] = now
        self._kept.pop(version, None)
        self._kept[version] = loaded
        self._drop()
        labels = (loaded.model, version, loaded.codebook_digest)
        self._metrics.codebook_info.labels(*labels).set(1)
        self._metrics.codebook_activated.set(now)
        if before is not loaded:
            self._metrics.codebook_info.remove(before.model, before.codebook_version, before.codebook_digest)

    def _drop(self, in_use: Collection[str] = ()) -> None:
        """Forget what was activated or requested the longest ago, if there is too much."""
        for version in self._droppable(in_use)[: max(0, len(self._kept) - self._keep)]:
            del self._kept[version]

    def _droppable(self, in_use: Collection[str]) -> list[str]:
        """Versions that may be forgotten, the first of them first."""
        needed = self._protected | {self.active.codebook_version} | set(in_use)
        return [version for version in self._kept if version not in needed]


def unreachable(error: ModelError) -> bool:
    """Whether a store could not be read, rather than held what cannot be used: its file system failed."""
    cause = error.__cause__
    return isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
