"""The gRPC services: requests in, answers and status codes out."""
