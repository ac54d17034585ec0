"""The command `foldmint-maintenance`."""
