"""The recorder: turns the ledger's queue and the dead-letter queues into rows.

How messages are read, folded and written is `leveret.ledger`'s; here they are taken in and acked.
"""
