"""Servers of our own on this machine that the real Telegram libraries talk to: for tests, and for the demo without an account."""
