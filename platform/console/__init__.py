"""Terminal output of a sweep: the plan, the live view, the final summary."""
