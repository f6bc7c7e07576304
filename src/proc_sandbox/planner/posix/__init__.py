"""The POSIX planner, and Seatbelt's profile for macOS."""
