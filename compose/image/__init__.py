"""What the Dockerfile runs while it builds; each file needs Python alone."""
