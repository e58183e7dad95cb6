"""Studies of what tells attacked images from others, and of what is left of it under attack."""
