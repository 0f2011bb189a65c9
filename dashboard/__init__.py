"""The dashboard: pages over the REST API, which is all it knows of Keeper."""
