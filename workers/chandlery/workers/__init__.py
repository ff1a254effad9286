"""A worker's inside: segment, feed, supervisor, trader process, strategy API and the shipped strategies."""
