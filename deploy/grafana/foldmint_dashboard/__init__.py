"""The dashboard of Foldmint, as code for Grafana's foundation SDK; `deploy/grafana/dashboard.py` writes its JSON."""
