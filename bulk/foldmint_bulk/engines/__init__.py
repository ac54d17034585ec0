"""Engines: what runs workers."""
