"""The health service, for probes and load balancers, which carry no token."""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

_LONGEST = 256  # characters of a service's name, which a watch holds as long as it lasts


class HealthServicer(health.aio.HealthServicer):
    """grpc-health-checking's, for names of a sensible length."""

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:  # noqa: N802, ANN401
        """Answer with a service's health once."""
        await _check_name(request, context)
        return await super().Check(request, context)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802, ANN401
        """Stream a service's health now and whenever it changes."""
        await _check_name(request, context)
        await super().Watch(request, context)


async def _check_name(request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: ANN401
    if len(request.service) > _LONGEST:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"service: the name is longer than {_LONGEST} characters")
