"""Which items may be served, and which of them are worth a closer look. Every function takes and gives rows of a pool."""
