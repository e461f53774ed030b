"""Interactions to scores: each module has one model and its parameters. No model opens the database or writes when it scores."""
