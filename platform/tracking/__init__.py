"""What a sweep leaves behind: events, tables, MLflow runs, the model registry."""
