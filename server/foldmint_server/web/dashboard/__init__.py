"""The dashboard: its static files and the API that they read."""
