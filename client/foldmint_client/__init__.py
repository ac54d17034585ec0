"""Client of a Foldmint server."""
