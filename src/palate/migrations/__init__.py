"""Steps that bring a database of an older Palate to this one's tables. The list in `versions/` only grows."""
