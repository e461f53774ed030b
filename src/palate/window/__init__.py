"""The events of the training window in memory: kept in 16 bytes each, their merge by (user, item) included."""
