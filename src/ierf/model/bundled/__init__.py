"""The checkpoints that come with the package, and the code of their networks."""
