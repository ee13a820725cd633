"""From a bank and photographs to a concept graph."""
