"""Host and device at work side by side: what travels between them, and how long it all takes."""
