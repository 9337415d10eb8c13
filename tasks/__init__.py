"""Tasks: the spine that makes cached, retried Prefect tasks of stages."""
