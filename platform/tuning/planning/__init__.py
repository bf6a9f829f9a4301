"""What a sweep will do and cost, computed before it starts."""
