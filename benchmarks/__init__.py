"""Speed and memory, side by side in one run, as ratios. `make bench` runs them all."""
