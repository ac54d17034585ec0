"""Foldmint's gRPC contract."""
