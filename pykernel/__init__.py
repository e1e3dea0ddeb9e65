"""pykernel."""
