"""A concept graph as a file."""
