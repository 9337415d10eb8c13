"""Sources of raw data: Debian packages, WARC, HTML, JSONL, Parquet."""
