"""How concepts of one layer act on those of a later one, or on classes: attributions and their tests."""
