"""What can it learn? Training, and the check of what was trained."""
