"""Trials on Ray: the session, in-process and data-parallel backends, the driver's callback."""
