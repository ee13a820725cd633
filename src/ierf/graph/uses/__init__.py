"""What a concept graph is used for: comparing, diagnosing, intervening, attacking."""
