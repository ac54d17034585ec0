"""The server as a whole: what it is made of, how it starts, and how it stops."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import grpc
import structlog
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_server.decoding import Decoding
from foldmint_server.metrics import create_metrics
from foldmint_server.pipeline import Pipeline, Serving
from foldmint_server.scheduler import Scheduler, SchedulerConfig
from foldmint_server.service import TokenizerServicer
from foldmint_server.settings import Settings
from foldmint_server.usage import CodeUsage
from foldmint_tokenizer import Limits, StructureDetokenizer, vocabulary
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.store import Model, load_model

log = structlog.get_logger(__name__)
SERVICE = pb.DESCRIPTOR.services_by_name["TokenizerService"].full_name


class Server:
    """A server from settings: `await start()`, then `await stop()`.

    address, metrics_address: HOST:PORT once started, with the ports that were taken.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = self.metrics_address = ""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, and Prometheus knows when a counter began
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    async def start(self) -> None:
        """Load, listen, warm up, and only then report SERVING.

        Raises ModelError if the model cannot be used, OSError or RuntimeError if a port cannot be had.
        """
        settings = self.settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        model = load_model(settings.model)
        engine = Engine(model.encoder, _device(settings.device))
        serving = _serving(model, engine)
        usage = CodeUsage(model.config.codes, settings.usage_window, time.monotonic)
        metrics = create_metrics(self._registry, usage)
        metrics.codebook_info.labels(model.name, serving.codebook_version, serving.codebook_digest).set(1)
        metrics.codebook_activated.set_to_current_time()

        self._pool = ThreadPoolExecutor(settings.parse_threads, "parse")
        self._scheduler = Scheduler(engine, _scheduling(settings, engine), metrics)
        self._decoding = None
        if model.decoder is not None:
            detokenizer = StructureDetokenizer(model, engine.device)
            self._decoding = Decoding(detokenizer, settings.max_queued_detokenize_residues, metrics)
        limits, decode_limits = _limits(settings), _decode_limits(settings)
        pipeline = Pipeline(serving, self._scheduler, self._decoding, self._pool, limits, decode_limits, metrics)
        self._servicer = TokenizerServicer(
            pipeline, _about(model, serving, settings), metrics, settings.max_stream_in_flight
        )
        await self._listen()
        # While health says NOT_SERVING: libraries load and memory is taken at the first step, not at a request.
        await asyncio.to_thread(engine.warm_up, serving.embeddings)
        if self._decoding is not None:
            await self._decoding.warm_up()
        await self._report(serving=True)
        self._watch = asyncio.create_task(self._watch_device())
        log.info(
            "serving",
            address=self.address,
            metrics=self.metrics_address,
            model=model.name,
            codebook=serving.codebook_version,
            device=str(engine.device),
        )

    async def stop(self) -> None:
        """Report NOT_SERVING, finish what was admitted (within `drain_seconds`), and close everything."""
        log.info("stopping")
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        await self._health.enter_graceful_shutdown()
        self._servicer.drain()
        await self._grpc.stop(self.settings.drain_seconds)
        await asyncio.to_thread(self._scheduler.close)
        if self._decoding is not None:
            await asyncio.to_thread(self._decoding.close)
        self._pool.shutdown(cancel_futures=True)
        self._metrics_server.shutdown()
        self._metrics_server.server_close()
        log.info("stopped")

    async def _listen(self) -> None:
        settings = self.settings
        self._grpc = grpc.aio.server(
            maximum_concurrent_rpcs=settings.max_concurrent_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Two servers on one port would share it silently.
                ("grpc.so_reuseport", 0),
            ],
        )
        rpc.add_TokenizerServiceServicer_to_server(self._servicer, self._grpc)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        await self._report(serving=False)
        if settings.reflection:
            names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)
        host, _, wanted = settings.listen.rpartition(":")
        port = self._grpc.add_insecure_port(f"{host}:{wanted}")
        metrics_host, _, metrics_port = settings.metrics_listen.rpartition(":")
        self._metrics_server, _ = start_http_server(
            int(metrics_port), metrics_host.strip("[]"), registry=self._registry
        )
        await self._grpc.start()
        self.address = f"{host}:{port}"
        self.metrics_address = f"{metrics_host}:{self._metrics_server.server_port}"

    async def _report(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def _watch_device(self) -> None:
        """Report NOT_SERVING while the device thread is stuck or dead, or the decode thread is stuck."""
        well = True
        while True:
            await asyncio.sleep(1)
            seconds = self.settings.stuck_seconds
            stuck = self._scheduler.stuck(seconds) or (self._decoding is not None and self._decoding.stuck(seconds))
            now_well = not stuck
            if now_well != well:
                well = now_well
                log.error("the device works again" if well else "the device is stuck")
                await self._report(serving=well)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_unpacked_bytes, settings.max_chains, settings.max_residues)


def _decode_limits(settings: Settings) -> Limits:
    return Limits(settings.max_unpacked_bytes, settings.max_chains, settings.max_detokenize_residues)


def _scheduling(settings: Settings, engine: Engine) -> SchedulerConfig:
    step = settings.max_batch_residues or engine.step_rows
    return SchedulerConfig(
        step_residues=step,
        slice_residues=settings.slice_residues or max(1, step // 8),
        max_delay=settings.max_delay,
        queued_residues=settings.max_queued_residues,
    )


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _serving(model: Model, engine: Engine) -> Serving:
    embeddings = model.codebook.codebook.embeddings.to(engine.device)
    return Serving(
        model.name,
        model.encoder_digest,
        model.codebook.version,
        model.codebook.digest,
        embeddings,
        engine.frameless_code(embeddings),
        model.config.codes,
    )


def _about(model: Model, serving: Serving, settings: Settings) -> pb.GetModelResponse:
    sizes = model.config
    limits = _limits(settings)
    return pb.GetModelResponse(
        model=serving.model,
        encoder_digest=serving.encoder_digest,
        codebook_version=serving.codebook_version,
        codebook_digest=serving.codebook_digest,
        sizes=pb.ModelSizes(
            width=sizes.width, heads=sizes.heads, layers=sizes.layers, out=sizes.out, codes=sizes.codes
        ),
        vocabulary=pb.Vocabulary(
            codes=sizes.codes,
            mask=vocabulary.MASK,
            eos=vocabulary.EOS,
            bos=vocabulary.BOS,
            pad=vocabulary.PAD,
            chainbreak=vocabulary.CHAINBREAK,
        ),
        limits=pb.RequestLimits(
            residues=limits.residues,
            chains=limits.chains,
            unpacked_bytes=limits.unpacked_bytes,
            message_bytes=settings.max_message_bytes,
            detokenize_residues=0 if model.decoder is None else settings.max_detokenize_residues,
        ),
        server_version=version("foldmint"),
        decoder=_about_decoder(model),
    )


def _about_decoder(model: Model) -> pb.DecoderInfo | None:
    if model.decoder is None:
        return None
    sizes = model.decoder.config
    return pb.DecoderInfo(
        digest=model.decoder_digest or "",
        width=sizes.width,
        heads=sizes.heads,
        layers=sizes.layers,
        chained=sizes.chained,
    )
