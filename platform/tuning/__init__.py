"""Space files, sampler, schedulers, trials under Ray Tune and Ray Train, selection."""
