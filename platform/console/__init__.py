"""What a sweep shows in the terminal: plan, live table, final summary."""
