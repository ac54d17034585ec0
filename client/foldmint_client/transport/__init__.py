"""Calls, streams and their state over gRPC."""
