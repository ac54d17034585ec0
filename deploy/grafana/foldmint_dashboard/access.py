"""What is let in and what is not, and whether servers do what their store says."""

from foldmint_dashboard.panels import RATE, SERVERS, PanelBuilder, course


def admission() -> list[PanelBuilder]:
    """Connections, calls, and those that were refused."""
    return [
        course(
            "Calls and connections refused a second",
            "By limit: of calls, watches and probes, in all or of one caller, and of one peer's connections.",
            (f'sum by (reason) (rate(foldmint_rejects_total{{{SERVERS},reason=~"too_many_.*"}}{RATE}))', "{{reason}}"),
        ),
        course(
            "Open connections",
            "To the gRPC listeners, for callers and for operators.",
            (f"foldmint_connections{{{SERVERS}}}", "{{instance}} {{listener}}"),
        ),
        course(
            "Open calls",
            "Admitted and not ended. Health checks and watches have capacity of their own.",
            (f"sum by (instance, kind) (foldmint_open_calls{{{SERVERS}}})", "{{instance}} {{kind}}"),
        ),
        course(
            "Calls without permission, a second",
            "By status: UNAUTHENTICATED without a valid token, PERMISSION_DENIED without the scope.",
            (f"sum by (status) (rate(foldmint_refused_calls_total{{{SERVERS}}}{RATE}))", "{{status}}"),
        ),
        course(
            "Page and /metrics refused, a second",
            "no_password is also a browser's first request; wrong_password, and host, a name that is not the server's.",
            (f"sum by (reason) (rate(foldmint_refused_web_requests_total{{{SERVERS}}}{RATE}))", "{{reason}}"),
        ),
        course(
            "Streams ended by the server, a second",
            "idle: nothing was sent; not_read: answers were not taken; or a limit was reached.",
            (f"sum by (reason) (rate(foldmint_calls_ended_total{{{SERVERS}}}{RATE}))", "{{reason}}"),
        ),
        course(
            "Time to the end of certificates",
            "Of the server's own, and of its callers' authorities. Nothing without TLS.",
            (
                f"min by (certificate) (foldmint_certificate_expiry_timestamp_seconds{{{SERVERS}}}) - time()",
                "{{certificate}}",
            ),
            unit="s",
            width=12,
        ),
        course(
            "Time to the end of tokens",
            "Of tokens that expire; below 0 they are refused.",
            (f"min by (token) (foldmint_token_expiry_timestamp_seconds{{{SERVERS}}}) - time()", "{{token}}"),
            unit="s",
            width=12,
        ),
    ]


def store() -> list[PanelBuilder]:
    """What servers serve, by what their store says."""
    return [
        course(
            "Servers that follow their store",
            "1: it serves what the store said when it was read last.",
            (f"foldmint_codebook_follows_store{{{SERVERS}}}", "{{instance}} follows"),
            (f"foldmint_store_reachable{{{SERVERS}}}", "{{instance}} reaches it"),
        ).max(1),
        course(
            "What stores say is active",
            "Servers by the version that they read in their store; several lines until all have read it anew.",
            (f"count by (version) (foldmint_store_active_info{{{SERVERS}}})", "{{version}}"),
        ),
        course(
            "Canary",
            "Share of the servers that the store's canary is for, and that serves it. Nothing without a canary.",
            (f"max by (version) (foldmint_store_canary_share{{{SERVERS}}})", "{{version}} wanted"),
            (
                f"count by (version) (foldmint_codebook_info{{{SERVERS}}} and on (instance, version) "
                f"foldmint_store_canary_share{{{SERVERS}}}) / scalar(count(foldmint_codebook_info{{{SERVERS}}}))",
                "{{version}} served",
            ),
            unit="percentunit",
        ).max(1),
    ]


def panels() -> list[PanelBuilder]:
    """The row's panels, in their order."""
    return [*admission(), *store()]
