"""A gRPC status with details, for a servicer to fail with."""

from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

Violations = list[tuple[str, str]]


@dataclass
class Fault:
    """What a call fails with. retry_after: seconds."""

    code: grpc.StatusCode
    message: str = "as scripted"
    violations: Violations = field(default_factory=list)
    retry_after: float | None = None

    def abort(self, context: Any) -> None:
        """End the call with this status."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.violations:
            detail = error_details_pb2.BadRequest()
            for name, description in self.violations:
                detail.field_violations.add(field=name, description=description)
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        if self.retry_after is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromMilliseconds(round(self.retry_after * 1000))
            packed = any_pb2.Any()
            packed.Pack(info)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))
