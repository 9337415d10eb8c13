"""Tests of the flows, the command and the server."""
