"""Small helpers for people who keep a ship's log."""
