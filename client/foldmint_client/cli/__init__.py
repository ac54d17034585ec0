"""The command `foldmint`."""
