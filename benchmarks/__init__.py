"""Side-by-side measurements, each runnable alone: a table on stdout, and a record with `--json FILE`."""
