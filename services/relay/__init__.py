"""The relay: moves jobs from the outboxes of databases to the broker.

Reads `leveret_outbox`, publishes, deletes what is confirmed. It runs no jobs and keeps no state.
"""
