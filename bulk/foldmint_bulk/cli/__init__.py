"""The command `foldmint-bulk`."""
