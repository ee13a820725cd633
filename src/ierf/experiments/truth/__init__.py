"""The world whose concepts are known: every level against the truth."""
