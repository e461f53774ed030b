"""Text into what the other stages can use: pure functions over one item or one page."""
