"""What a comparison found, in sentences from its intervals: for terminal and report alike."""
