"""Player sessions and ticks to what people watched, day by day."""
