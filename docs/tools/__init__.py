"""What makes the pages around it: their generated parts and pictures, and the site of them all."""
