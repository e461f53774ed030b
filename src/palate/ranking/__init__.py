"""Candidates to an ordered, explained list."""
