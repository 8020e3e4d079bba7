"""`make demo`: the main job on real input, on the stack of this checkout.

The flights of 2013 out of New York arrive as one job for each day, their reports are mailed and
delivered, and on the way things go wrong that go wrong in production. `plan` says what is published
and how each job has to end, `scenario` lets it happen, `book` keeps what the broker reports, and
`verdict` holds one against the other. All of it happens in the virtual host `leveret-demo`, with
workers of its own: nothing here touches the jobs in `leveret`.
"""
