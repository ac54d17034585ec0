"""The server's own page: what it serves and how its codes are used, for a browser; beside /metrics, on one port."""
