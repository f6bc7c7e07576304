"""The Linux planner."""
