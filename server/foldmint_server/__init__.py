"""The gRPC server that turns structures into tokens."""
