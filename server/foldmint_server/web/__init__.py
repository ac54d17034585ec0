"""The HTTP server of metrics and dashboard."""
