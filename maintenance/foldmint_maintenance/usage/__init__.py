"""Usage of codes, from servers, Prometheus or data."""
