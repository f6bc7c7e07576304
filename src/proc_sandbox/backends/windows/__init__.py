"""Windows: Job objects, tokens, AppContainer; winapi.py is all that the rest of this folder knows of the system."""
