"""The scheduler: one leased APScheduler process, and others that wait to take its place."""
