"""Where bars come from and where orders go."""
