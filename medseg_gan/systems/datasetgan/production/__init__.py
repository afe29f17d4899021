"""Any number of labelled pairs, in shards."""
