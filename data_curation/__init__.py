"""Curation: from raw pages to shards and conversations; runs without Prefect."""
