"""What fine-tuning would take, by samples of its texts and a few steps of its models."""
