"""Reads structures in child processes: large or hostile files cannot delay, or end, the process that wants them."""
