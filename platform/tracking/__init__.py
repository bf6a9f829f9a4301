"""Records of a sweep: events, tables, MLflow runs, the model registry, the sweep folder."""
