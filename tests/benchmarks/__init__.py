"""What is measured, not asserted: `make bench`."""
