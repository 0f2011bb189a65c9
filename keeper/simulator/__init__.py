"""A Keepa that runs on this machine: same protocol, own catalog and prices, token bucket, a clock that can run fast, faults on request."""
