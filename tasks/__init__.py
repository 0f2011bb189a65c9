"""One thin Prefect task per verb, of the same name: retries, tags, one call."""
