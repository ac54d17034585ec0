"""Vector quantization: EMA, assignment and dead-code reset."""
