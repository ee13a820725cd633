"""What it costs, as ratios of times measured in turns in the same run."""
