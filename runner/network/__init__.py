"""Networks of containers: none, host, and one bridge with address translation."""
