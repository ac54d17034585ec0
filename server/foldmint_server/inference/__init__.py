"""Scheduling, batching and the workers that own a device."""
