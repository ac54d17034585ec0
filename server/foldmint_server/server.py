"""The server as a whole: what it is made of, how it starts, and how it stops."""

import asyncio
import contextlib
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from wsgiref.types import WSGIApplication

import grpc
import numpy as np
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
)

from foldmint.v1 import codebook_pb2, codebook_pb2_grpc, tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_server.codebooks.manager import CodebookLoader, CodebookManager
from foldmint_server.codebooks.reservoir import Reservoir
from foldmint_server.codebooks.store_watcher import StoreWatcher
from foldmint_server.inference.decode_worker import DecodeWorker
from foldmint_server.inference.devices import engines_of, scheduling
from foldmint_server.inference.scheduler import Scheduler
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.gpu import GpuCollector
from foldmint_server.metrics.registry import create_metrics
from foldmint_server.rpc.channel_options import channel_options
from foldmint_server.rpc.codebook_service import CodebookServicer
from foldmint_server.rpc.malformed_messages import MalformedMessageInterceptor
from foldmint_server.rpc.model_info import about, decode_limits_of, limits_of
from foldmint_server.rpc.pipeline import Pipeline
from foldmint_server.rpc.stream_limits import StreamLimits
from foldmint_server.rpc.tokenizer_service import TokenizerServicer
from foldmint_server.security.setup import Security
from foldmint_server.settings import Settings
from foldmint_server.tracing.setup import create_tracing
from foldmint_server.web.dashboard.app import dashboard_app
from foldmint_server.web.dashboard.lineage import Lineage
from foldmint_server.web.dashboard.traffic import Traffic
from foldmint_server.web.dashboard.usage_api import UsageApi
from foldmint_server.web.http_server import WebServer
from foldmint_tokenizer import StructureDetokenizer, assignment
from foldmint_tokenizer.store import Store

log = structlog.get_logger(__name__)
SERVICE = tokenizer_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name
ADMIN_SERVICE = codebook_pb2.DESCRIPTOR.services_by_name["CodebookService"].full_name

_LOST_SECONDS = 2.0


class Server:
    """A server from settings: `await start()`, then `await stop()`.

    address, metrics_address, admin_address: HOST:PORT once started, with the ports that were taken. lost: set once no
    device is left to compute on; what is in flight has failed then, and nothing is left but to stop.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = self.metrics_address = self.admin_address = ""
        self.lost = asyncio.Event()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, and Prometheus knows when a counter began
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    async def start(self) -> None:
        """Load, listen, warm up, and only then report SERVING.

        Raises ModelError if the model cannot be used, TracingError if traces are asked for and cannot be had,
        SecurityError if tokens or certificates cannot, OSError or RuntimeError if a port cannot be had.
        """
        settings = self.settings
        self._tracing = create_tracing(settings.otlp_endpoint, os.environ)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        store = Store(settings.model)
        model = store.load()
        engines = engines_of(model, settings)
        devices = ", ".join(dict.fromkeys(str(engine.device) for engine in engines))
        usage = CodeUsage(model.config.codes, settings.usage_window, time.monotonic, settings.code_metrics)
        self._metrics = metrics = create_metrics(self._registry, usage)
        self._registry.register(GpuCollector({engine.device for engine in engines}))
        metrics.describe(
            device=devices,
            precision=settings.precision,
            queued_residues=settings.max_queued_residues,
            queued_detokenize_residues=settings.max_queued_detokenize_residues,
        )

        self._security = Security(settings, metrics)
        self._pool = ThreadPoolExecutor(settings.parse_threads, "parse")
        reservoir = None
        if settings.reservoir:
            reservoir = Reservoir(settings.reservoir, model.config.out, np.random.default_rng())
        observe = None if reservoir is None else reservoir.record
        self._scheduler = Scheduler(engines, scheduling(settings, engines), metrics, observe=observe)
        self._decoding = detokenizer = None
        if model.decoder is not None:
            detokenizer = StructureDetokenizer(model, engines[0].device)
            self._decoding = DecodeWorker(
                self._tracing.decoder(detokenizer),
                settings.max_queued_detokenize_residues,
                metrics,
                failed=lambda: self._scheduler.health_check(self._codebooks.active.embeddings),
            )
        self._codebooks = CodebookManager(
            store, model.codebook, CodebookLoader(model, engines, detokenizer), settings.keep_versions, metrics
        )
        pipeline = Pipeline(
            self._codebooks,
            self._scheduler,
            self._decoding,
            self._pool,
            limits_of(settings),
            decode_limits_of(settings),
            metrics,
            rates=self._security.rates,
            reading=model.reading,
        )
        self._servicer = TokenizerServicer(
            pipeline,
            about(model, settings),
            metrics,
            StreamLimits.from_settings(settings),
            settings.tenant_key,
            self._tracing,
        )
        traffic = Traffic(metrics)
        numbers = UsageApi(usage, settings.usage_window, self._codebooks, traffic)
        page = self._security.protect(dashboard_app(self._registry, numbers, Lineage(self._codebooks)))
        await self._listen(CodebookServicer(self._codebooks, usage, reservoir), page)
        # While health says NOT_SERVING: libraries load and memory is taken at the first step, not at a request.
        await self._scheduler.warm_up(self._codebooks.active.embeddings)
        if self._decoding is not None:
            await self._decoding.warm_up()
        await self._report(serving=True)
        if self._codebooks.active.coding is not None:
            # Beside the first requests, of which few ask for it; the process may end before it is done.
            threading.Thread(target=assignment.warm_up, name="assignment", daemon=True).start()
        self._tasks = [asyncio.create_task(self._watch_device()), asyncio.create_task(traffic.run())]
        self._tasks.append(asyncio.create_task(self._security.run()))
        if settings.poll_seconds:
            watcher = StoreWatcher(self._codebooks, metrics.store_reachable.set)
            self._tasks.append(asyncio.create_task(watcher.run(settings.poll_seconds)))
        self._security.log_setup()
        log.info(
            "serving",
            address=self.address,
            metrics=self.metrics_address,
            admin=self.admin_address,
            model=model.name,
            codebook=self._codebooks.active.codebook_version,
            device=devices,
        )

    async def stop(self) -> None:
        """Report NOT_SERVING, finish what was admitted (within `drain_seconds`), and close everything."""
        log.info("stopping")
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._metrics.ready.set(0)
        await self._health.enter_graceful_shutdown()
        self._servicer.drain()
        # Of a server that has lost its devices nothing is left to be finished.
        seconds = min(self.settings.drain_seconds, _LOST_SECONDS if self.lost.is_set() else math.inf)
        await asyncio.gather(self._grpc.stop(seconds), self._admin.stop(seconds))
        await asyncio.to_thread(self._scheduler.close)
        if self._decoding is not None:
            await asyncio.to_thread(self._decoding.close)
        await asyncio.to_thread(self._codebooks.close)
        self._pool.shutdown(cancel_futures=True)
        self._web.stop()
        await asyncio.to_thread(self._tracing.close)
        log.info("stopped")

    async def _listen(self, admin: CodebookServicer, page: WSGIApplication) -> None:
        settings = self.settings
        options = channel_options(settings)
        guards = [MalformedMessageInterceptor(), *self._security.interceptors]
        most = settings.max_concurrent_calls
        self._grpc = grpc.aio.server(maximum_concurrent_rpcs=most, options=options, interceptors=guards)
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(self._servicer, self._grpc)
        self._admin = grpc.aio.server(maximum_concurrent_rpcs=most, options=options, interceptors=guards)
        codebook_pb2_grpc.add_CodebookServiceServicer_to_server(admin, self._admin)
        # So that who swaps can look, at the same address, at what is served.
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(self._servicer, self._admin)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        await self._report(serving=False)
        if settings.reflection:
            names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)
            reflection.enable_server_reflection((ADMIN_SERVICE, SERVICE, reflection.SERVICE_NAME), self._admin)
        self.address = self._bound(self._grpc, settings.listen)
        self.admin_address = self._bound(self._admin, settings.admin_listen, admin=True)
        metrics_host, _, metrics_port = settings.metrics_listen.rpartition(":")
        self._web = WebServer(metrics_host.strip("[]"), int(metrics_port), page, self._security.web_tls)
        self._web.start()
        await self._grpc.start()
        await self._admin.start()
        self.metrics_address = f"{metrics_host}:{self._web.server_port}"

    async def _report(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)
        self._metrics.ready.set(serving)

    async def _watch_device(self) -> None:
        """Report NOT_SERVING while a device's thread is stuck, the decode thread is, or all devices are lost."""
        well = True
        while True:
            await asyncio.sleep(1)
            seconds = self.settings.stuck_seconds
            stuck = self._scheduler.hung(seconds) or (self._decoding is not None and self._decoding.hung(seconds))
            now_well = not stuck
            if now_well != well:
                well = now_well
                log.error("the device works again" if well else "the device is stuck")
                await self._report(serving=well)
            if self._scheduler.lost:
                self.lost.set()
                return

    def _bound(self, server: grpc.aio.Server, address: str, *, admin: bool = False) -> str:
        """Bind a server to HOST:PORT; the address with the port that was taken."""
        host = address.rpartition(":")[0]
        return f"{host}:{self._security.bind(server, address, admin=admin)}"
