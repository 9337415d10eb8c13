"""Training: from shards to an aligned model; runs without Prefect."""
