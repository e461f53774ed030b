"""The world into items: each module reads one kind of source and gives `Fetched`, or explains why it can't."""
