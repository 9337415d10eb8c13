"""Flows: the road, its configuration, the command and the server."""
