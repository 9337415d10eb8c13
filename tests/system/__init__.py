"""Tests that need programs besides pip packages: a browser, PostgreSQL."""
