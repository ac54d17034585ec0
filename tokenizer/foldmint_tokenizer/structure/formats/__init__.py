"""File formats: detection, decompression, and each format into a table of atoms."""
