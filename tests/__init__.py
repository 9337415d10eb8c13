"""Tests: the same four folders again."""
