"""The command `foldmint-server`."""
