"""The server as a whole: what it is made of, how it starts, and how it stops."""

import asyncio
import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Sequence
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
from foldmint_server.codebooks.requested_versions import RequestedVersions
from foldmint_server.codebooks.reservoir import Reservoir
from foldmint_server.codebooks.store_follower import StoreFollower
from foldmint_server.inference.decode_worker import DecodeWorker
from foldmint_server.inference.devices import engines_of, scheduling
from foldmint_server.inference.scheduler import Scheduler
from foldmint_server.log_config import flush_log_periodically
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.gpu import GpuCollector
from foldmint_server.metrics.registry import Metrics, create_metrics
from foldmint_server.rpc.admission.connections import ConnectionLimiter, Listener
from foldmint_server.rpc.admission.interceptor import AdmissionInterceptor, CallLimits
from foldmint_server.rpc.admission.open_files import allow_connections
from foldmint_server.rpc.channel_options import channel_options
from foldmint_server.rpc.codebook_service import CodebookServicer
from foldmint_server.rpc.health import HealthServicer
from foldmint_server.rpc.malformed_messages import MalformedMessageInterceptor
from foldmint_server.rpc.message_sizes import MessageSizeInterceptor
from foldmint_server.rpc.model_info import about, decode_limits_of, limits_of
from foldmint_server.rpc.pipeline import Pipeline
from foldmint_server.rpc.stream_limits import StreamLimits
from foldmint_server.rpc.structure_parser import StructureParser
from foldmint_server.rpc.tokenizer_service import TokenizerServicer
from foldmint_server.security.authorization import CALLER
from foldmint_server.security.file_reload import check_periodically
from foldmint_server.security.setup import Security
from foldmint_server.settings import Settings
from foldmint_server.tracing.interceptor import TracingInterceptor
from foldmint_server.tracing.setup import start_exporter
from foldmint_server.web.dashboard.app import dashboard_app
from foldmint_server.web.dashboard.devices import Devices
from foldmint_server.web.dashboard.lineage import Lineage
from foldmint_server.web.dashboard.traffic import Traffic
from foldmint_server.web.dashboard.usage_api import Listener as DashboardListener
from foldmint_server.web.dashboard.usage_api import UsageApi
from foldmint_server.web.http_server import WebServer
from foldmint_tokenizer import StructureDetokenizer
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.motion import assignment
from foldmint_tokenizer.store.model_store import Store

log = structlog.get_logger(__name__)
SERVICE = tokenizer_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name
ADMIN_SERVICE = codebook_pb2.DESCRIPTOR.services_by_name["CodebookService"].full_name

_LOST_SECONDS = 2.0
_LOOK_SECONDS = 1.0  # from one look at the connections to the next


class Server:
    """A server from settings: `await start()`, then `await stop()`.

    address, metrics_address, admin_address: HOST:PORT once started, with the ports that were taken. lost: set once no
    device is left to compute on; what is in flight has failed then, and nothing is left but to stop.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = self.metrics_address = self.admin_address = ""
        self.lost = asyncio.Event()
        self._resources = contextlib.AsyncExitStack()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, and Prometheus knows when a counter began
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    async def start(self) -> None:
        """Load, listen, warm up, and only then report SERVING. If a step fails, what was begun is closed again.

        Raises ModelError if the model cannot be used, TracingError if traces are requested and cannot be exported,
        SecurityError if tokens or certificates cannot be used, OSError or RuntimeError if a port is not available.
        """
        async with contextlib.AsyncExitStack() as resources:
            await self._start(resources)
            self._resources = resources.pop_all()

    async def stop(self) -> None:
        """Report NOT_SERVING, finish what was admitted (within `drain_seconds`), and close everything."""
        log.info("stopping")
        await self._resources.aclose()
        log.info("stopped")

    async def _start(self, resources: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        if (exporter := start_exporter(settings.otlp_endpoint, os.environ)) is not None:
            resources.push_async_callback(asyncio.to_thread, exporter.close)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        store = Store(settings.model)
        model = store.load()
        engines = engines_of(model, settings)
        usage = CodeUsage(model.config.codes, settings.usage_window, time.monotonic, settings.code_metrics)
        self._metrics = metrics = self._create_metrics(usage, engines)
        self._security = security = Security(settings, metrics)
        resources.push_async_callback(asyncio.to_thread, security.close)
        pool = ThreadPoolExecutor(settings.parse_threads, "parse")
        resources.callback(pool.shutdown, cancel_futures=True)

        reservoir = None
        if settings.reservoir:
            reservoir = Reservoir(settings.reservoir, model.config.out, np.random.default_rng())
        detokenizer = None if model.decoder is None else StructureDetokenizer(model, engines[0].device)
        codebooks = CodebookManager(
            store, model.codebook, CodebookLoader(model, engines, detokenizer), settings.keep_versions, usage, metrics
        )
        resources.push_async_callback(asyncio.to_thread, codebooks.close)
        name = settings.server_name or socket.gethostname()
        follower = StoreFollower(codebooks, name, metrics)
        # Before the first request: this server may serve a canary.
        await follower.poll()
        observe = None if reservoir is None else reservoir.record
        scheduler = Scheduler(
            engines,
            scheduling(settings, engines),
            metrics,
            observe=observe,
            names=[str(engine.device) for engine in engines],
        )
        resources.push_async_callback(asyncio.to_thread, scheduler.close)
        decoder = None
        if detokenizer is not None:
            decoder = DecodeWorker(
                detokenizer,
                settings.max_queued_detokenize_residues,
                metrics,
                failed=lambda: scheduler.health_check(codebooks.active.embeddings),
            )
            resources.push_async_callback(asyncio.to_thread, decoder.close)

        parser = StructureParser(
            pool,
            limits_of(settings),
            metrics,
            reading=model.reading,
            processes=settings.parse_processes,
            seconds=settings.max_parse_seconds,
        )
        resources.push_async_callback(asyncio.to_thread, parser.close)
        pipeline = Pipeline(
            codebooks,
            RequestedVersions(codebooks, name),
            scheduler,
            decoder,
            parser,
            pool,
            decode_limits_of(settings),
            usage,
            metrics,
            rates=security.rates,
        )
        servicer = TokenizerServicer(
            pipeline,
            about(model, settings),
            metrics,
            StreamLimits.from_settings(settings),
            settings.tenant_key,
        )
        traffic = Traffic(metrics)
        devices = Devices(
            metrics,
            [str(engine.device) for engine in engines],
            None if detokenizer is None else str(detokenizer.device),
            self._gpus.memory,
        )
        usage_api = UsageApi(
            usage, settings.usage_window, codebooks, follower, traffic, devices, docs_url=settings.docs_url
        )
        await self._listen(
            servicer,
            CodebookServicer(codebooks, follower, usage, reservoir, settings.poll_seconds),
            security.protect(dashboard_app(self._registry, usage_api, Lineage(codebooks))),
            resources,
        )
        usage_api.listener = DashboardListener(
            _port(self.address), tls=bool(settings.tls_server_certificate), token=security.needs_token
        )

        # While health says NOT_SERVING: libraries load and memory is taken at the first batch, not at a request.
        await scheduler.warm_up(codebooks.active.embeddings)
        if decoder is not None:
            await decoder.warm_up()
        await self._report(serving=True)
        if codebooks.active.coding is not None:
            # Beside the first requests, of which few ask for it; the process may end before it is done.
            threading.Thread(target=assignment.warm_up, name="assignment", daemon=True).start()
        tasks = [self._watch_devices(scheduler, decoder), traffic.run(devices.sample), security.run()]
        tasks += [check_periodically([self._connections], _LOOK_SECONDS), flush_log_periodically()]
        if settings.poll_seconds:
            tasks.append(follower.run(settings.poll_seconds))
        for task in tasks:
            resources.push_async_callback(_cancel, asyncio.create_task(task))
        security.log_setup()
        log.info(
            "serving",
            address=self.address,
            metrics=self.metrics_address,
            admin=self.admin_address,
            model=model.name,
            codebook=codebooks.active.codebook_version,
            name=name,
            device=_names(engines),
        )

    def _create_metrics(self, usage: CodeUsage, engines: Sequence[Engine]) -> Metrics:
        self._registry.register(usage)
        metrics = create_metrics(self._registry, self.settings.max_caller_names)
        self._gpus = GpuCollector(dict.fromkeys(engine.device for engine in engines))
        self._registry.register(self._gpus)
        metrics.describe(
            device=_names(engines),
            precision=self.settings.precision,
            queued_residues=self.settings.max_queued_residues,
            queued_detokenize_residues=self.settings.max_queued_detokenize_residues,
        )
        return metrics

    async def _listen(
        self,
        servicer: TokenizerServicer,
        admin_servicer: CodebookServicer,
        web_app: WSGIApplication,
        resources: contextlib.AsyncExitStack,
    ) -> None:
        """Bind and start the listeners: gRPC, gRPC of operators, HTTP."""
        settings = self.settings
        options = channel_options(settings)
        limits, metrics = CallLimits.from_settings(settings), self._metrics
        interceptors = [
            MalformedMessageInterceptor(lambda status: metrics.callers.refused(CALLER.get().name, status)),
            *self._security.interceptors,
            MessageSizeInterceptor(metrics),
            TracingInterceptor(),
        ]
        public = grpc.aio.server(options=options, interceptors=[AdmissionInterceptor(limits, metrics), *interceptors])
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(servicer, public)
        admin = grpc.aio.server(options=options, interceptors=[AdmissionInterceptor(limits, metrics), *interceptors])
        codebook_pb2_grpc.add_CodebookServiceServicer_to_server(admin_servicer, admin)
        # An operator who swaps codebooks can query, at the same address, what is served.
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(servicer, admin)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, public)
        await self._report(serving=False)
        if settings.reflection:
            names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, public)
            reflection.enable_server_reflection((ADMIN_SERVICE, SERVICE, reflection.SERVICE_NAME), admin)
        self.address = self._bound(public, settings.listen)
        self.admin_address = self._bound(admin, settings.admin_listen, admin=True)
        metrics_host, _, metrics_port = settings.metrics_listen.rpartition(":")
        web = WebServer(
            metrics_host.strip("[]"),
            int(metrics_port),
            web_app,
            self._security.web_tls,
            self._security.web_connection_refused,
        )
        web.start()
        resources.callback(web.stop)
        allow_connections(2 * settings.max_connections)
        await public.start()
        await admin.start()
        resources.push_async_callback(self._drain, servicer, public, admin)
        self.metrics_address = f"{metrics_host}:{web.server_port}"
        self._connections = ConnectionLimiter(
            (Listener("public", _port(self.address)), Listener("admin", _port(self.admin_address))),
            settings.max_connections_per_peer,
            lambda listener, count: metrics.connections.labels(listener).set(count),
            metrics.rejects.labels("too_many_connections").inc,
        )

    async def _drain(self, servicer: TokenizerServicer, *servers: grpc.aio.Server) -> None:
        """Report NOT_SERVING, take nothing more, and finish what was admitted."""
        self._metrics.ready.set(0)
        await self._health.enter_graceful_shutdown()
        servicer.drain()
        # Of a server that has lost its devices nothing is left to be finished.
        seconds = min(self.settings.drain_seconds, _LOST_SECONDS if self.lost.is_set() else math.inf)
        await asyncio.gather(*(server.stop(seconds) for server in servers))

    async def _report(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)
        self._metrics.ready.set(serving)

    async def _watch_devices(self, scheduler: Scheduler, decoder: DecodeWorker | None) -> None:
        """Report NOT_SERVING while a device's thread hangs, the decode thread does, or all devices are lost."""
        well = True
        while True:
            await asyncio.sleep(1)
            seconds = self.settings.stuck_seconds
            now_well = not (scheduler.hung(seconds) or (decoder is not None and decoder.hung(seconds)))
            if now_well != well:
                well = now_well
                log.error("the device works again" if well else "the device is stuck")
                await self._report(serving=well)
            if scheduler.lost:
                self.lost.set()
                return

    def _bound(self, server: grpc.aio.Server, address: str, *, admin: bool = False) -> str:
        """Bind a server to HOST:PORT; the address with the port that was taken."""
        host = address.rpartition(":")[0]
        return f"{host}:{self._security.bind(server, address, admin=admin)}"


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _names(engines: Sequence[Engine]) -> str:
    """The devices of engines, each once."""
    return ", ".join(dict.fromkeys(str(engine.device) for engine in engines))
