"""File formats: detection, decompression, and a parser for each format, which returns a table of atoms."""
