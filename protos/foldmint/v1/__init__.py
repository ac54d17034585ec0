"""Version 1 of the contract: `tokenizer.proto` and the code generated from it."""
