"""The processes that train one model together: how they were launched, and what each knows of the others."""
