"""The Windows planner."""
