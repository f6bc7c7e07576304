"""The Python end of the launcher: start it, send it runs, hear what became of them."""
