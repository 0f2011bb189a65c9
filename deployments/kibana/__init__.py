"""Kibana's dashboards: what they show, and how they get there."""
