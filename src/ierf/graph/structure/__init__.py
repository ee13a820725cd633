"""What a concept graph is made of."""
