"""The encoder optimized for CPUs."""
