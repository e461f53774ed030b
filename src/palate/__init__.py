"""Palate: a self-hosted feed engine."""
