"""A concept graph as a picture and as a page."""
