"""What work would take, before it is begun: measured by a little of it, and told."""
