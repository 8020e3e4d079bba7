"""Schedules: when which job is published, again and again.

What a schedule is (`Definition`), which moments are its slots, and what is kept of it in the
database. It fires nothing: that is the part of `scheduler`, which holds the lease.
"""
