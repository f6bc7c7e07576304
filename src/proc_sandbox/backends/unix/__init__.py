"""What both backends of a Unix do alike, for whom files are descriptors."""
