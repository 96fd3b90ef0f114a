"""What is watched in the numbers of training: whether they are finite and keep their course."""
