"""What a comparison would take, by a few steps of the baseline, and a few gradients."""
