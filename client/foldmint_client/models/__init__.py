"""Requests and responses as Python objects."""
