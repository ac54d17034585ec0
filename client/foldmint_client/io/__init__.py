"""Files read and written by the commands."""
