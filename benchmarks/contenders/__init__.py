"""The contenders of `equal_minutes.py`: one module each, and what they share."""
