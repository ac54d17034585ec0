"""The codebook versions that a server holds, and how it follows its store."""
