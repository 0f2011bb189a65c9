"""Elasticsearch: index templates, aliases over versioned indices, writing and reading documents."""
