"""Recall and false alarms of the diagnostics, measured on recorded runs with planted faults."""
