"""The business's figures of the event log: who comes back, what they do, what they are worth."""
