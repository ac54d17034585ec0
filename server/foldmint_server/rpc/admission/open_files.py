"""The limit of open files, each connection being one."""

import resource

import structlog

log = structlog.get_logger(__name__)
_OTHERS = 512  # files, devices, the metrics' connections


def allow_connections(connections: int) -> None:
    """Raise the process's soft limit of open files to what so many connections need; warn if it may not be so high."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHERS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "the limit of open files is below what connections may need",
            limit=allowed,
            wanted=wanted,
            remedy="a higher `ulimit -Hn` (systemd: LimitNOFILE), or a lower --max-connections",
        )
