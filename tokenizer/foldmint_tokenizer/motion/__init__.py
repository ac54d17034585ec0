"""Models whose codes encode motions: composition, assignment and decoding."""
