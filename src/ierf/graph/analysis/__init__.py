"""What graphs are for: intervening, comparing, diagnosing, and photographs that fool the network."""
