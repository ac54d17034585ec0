"""Collectives over the processes of a job."""
