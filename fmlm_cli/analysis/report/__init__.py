"""Reports: words, pages and figures, from results alone."""
