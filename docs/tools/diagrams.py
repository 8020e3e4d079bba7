"""The pictures of the pages in docs/explanation, drawn by `make docs`."""

from __future__ import annotations

from collections.abc import Callable

from docs.tools.draw import Drawing


def overview() -> Drawing:
    """Draw all of it, as a newcomer needs it."""
    d = Drawing(
        "overview",
        860,
        330,
        "Services publish into RabbitMQ, workers run jobs, a recorder remembers",
    )
    services = d.box(10, 60, 130, 50, "your services", "SDK, any client", kind="other")
    http = d.box(10, 215, 130, 50, "HTTP clients", "with a key", kind="other")
    broker = d.frame(235, 20, 260, 150, "RabbitMQ moves")
    jobs = d.queue(255, 55, 220, 28, "critical … scheduled")
    wheel = d.queue(255, 93, 220, 28, "delay wheel")
    ledger = d.queue(255, 131, 220, 28, "ledger, dead letters")
    workers = d.box(600, 45, 130, 50, "worker pools", "your actors")
    recorder = d.box(600, 120, 130, 50, "recorder", "folds events into rows")
    postgres = d.store(600, 230, 130, 70, "PostgreSQL", "remembers")
    api = d.box(235, 215, 100, 50, "API")
    scheduler = d.box(360, 275, 120, 40, "scheduler")
    relay = d.box(360, 195, 120, 40, "relay")
    d.arrow(services.right(), (235, 85), label="publish")
    d.arrow(http.right(), api.left(), label="202")
    d.arrow(jobs.right(), workers.left(0.48), label="run")
    d.arrow(workers.left(0.9), (540, 90), (540, 107), wheel.right(), dashed=True)
    d.text(545, 104, "retry", font="s", anchor="start")
    d.arrow(ledger.right(), recorder.left())
    d.arrow(recorder.bottom(), postgres.top())
    d.arrow(workers.right(), (755, 70), (755, 185), (500, 185), (455, 161), dashed=True)
    d.text(748, 200, "outcomes", font="s")
    d.arrow(api.right(0.9), (345, 260), (345, 253), (596, 253), label="outbox", at=(510, 248))
    d.arrow(scheduler.right(), (596, 295), label="slots, jobs", at=(535, 289))
    d.arrow((600, 240), (560, 240), (560, 215), relay.right())
    d.arrow(relay.top(), (420, broker.y + broker.height))
    d.text(430, 186, "publish", font="s", anchor="start")
    return d


def architecture() -> Drawing:  # noqa: PLR0915 - a large picture
    """Draw every exchange and queue, and who writes and reads them."""
    d = Drawing("architecture", 980, 560, "Exchanges, queues and processes of Leveret")
    sdk = d.box(10, 60, 120, 44, "SDK, CLI", kind="other")
    amqp = d.box(10, 118, 120, 44, "any AMQP client", kind="other")
    relay = d.box(10, 176, 120, 44, "relay")
    d.frame(180, 15, 560, 420, "RabbitMQ")
    jobs = d.exchange(200, 80, 120, 36, "leveret.jobs")
    delay = d.exchange(200, 190, 120, 36, "leveret.delay")
    route = d.exchange(370, 80, 120, 36, "leveret.route")
    wheel = d.queue(370, 190, 150, 36, "leveret.delay.*")
    due = d.exchange(370, 135, 120, 34, "leveret.due")
    work = d.queue(560, 62, 165, 40, "leveret.<queue>")
    lane = d.queue(560, 118, 165, 40, "….quarantine.*")
    retry = d.exchange(575, 190, 130, 36, "leveret.retry")
    unroutable = d.queue(370, 250, 175, 34, "leveret.unroutable")
    outcomes = d.exchange(575, 310, 145, 34, "leveret.outcomes")
    ledger = d.queue(370, 310, 175, 34, "leveret.ledger")
    dead = d.exchange(575, 375, 145, 34, "leveret.dead")
    letters = d.queue(370, 375, 175, 34, "leveret.dead.*")
    worker = d.box(810, 90, 150, 56, "worker pool", "launcher, children, lane")
    actors = d.box(810, 15, 150, 40, "your actors", kind="other")
    recorder = d.box(200, 480, 120, 46, "recorder")
    d.store(400, 465, 150, 76, "PostgreSQL", "jobs, dead letters,", "outbox, schedules")
    api = d.box(670, 460, 130, 40, "API, commands")
    scheduler = d.box(670, 510, 130, 40, "scheduler")
    for source in (sdk, amqp, relay):
        d.line(source.right(), (150, source.right()[1]))
    d.line((150, 82), (150, 208))
    d.arrow((150, 98), jobs.left(), label="now", at=(170, 92))
    d.arrow((150, 208), delay.left(), label="later", at=(166, 224))
    d.arrow(jobs.right(), route.left())
    d.arrow(route.right(), work.left(0.9))
    d.arrow(delay.right(), wheel.left())
    d.arrow(wheel.top(0.4), due.bottom())
    d.arrow(due.right(), (530, 152), (530, 90), work.left(0.7))
    d.arrow(work.right(), (770, 82), (770, 108), worker.left(0.32))
    d.arrow(lane.right(), worker.left(0.86))
    d.arrow(worker.top(), actors.bottom())
    d.arrow(worker.bottom(0.2), (840, 208), retry.right(), label="retries", at=(775, 202))
    d.arrow(retry.left(), wheel.right())
    d.arrow(worker.bottom(0.5), (885, 327), outcomes.right(), label="outcomes", at=(800, 321))
    d.arrow(worker.bottom(0.8), (930, 392), dead.right(), label="dead letters", at=(800, 386))
    d.arrow(
        worker.right(),
        (972, 118),
        (972, 170),
        (760, 170),
        (760, 148),
        lane.right(0.75),
        dashed=True,
    )
    d.text(868, 184, "suspects", font="s")
    d.arrow(outcomes.left(), ledger.right())
    d.arrow(dead.left(), letters.right())
    d.arrow(jobs.bottom(0.75), (290, 150), (345, 150), (345, 322), ledger.left(0.35), dashed=True)
    d.arrow(delay.bottom(0.5), (260, 334), ledger.left(0.7), dashed=True)
    d.text(268, 262, "tap", font="s", anchor="start")
    d.arrow(route.bottom(0.2), (394, 126), (356, 126), (356, 267), unroutable.left(), dashed=True)
    d.text(452, 297, "what no binding wants", font="s")
    for queue in (unroutable, ledger, letters):
        d.line(queue.left(0.9), (225, queue.left(0.9)[1]))
    d.line((225, 280.6), (225, 405.6))
    d.arrow((225, 405.6), (225, 480))
    d.arrow(recorder.right(), (398, 503))
    d.arrow(api.left(), (552, 480), label="reads, outbox", at=(612, 474))
    d.arrow(scheduler.left(), (552, 530), label="slots", at=(612, 524))
    d.arrow((400, 535), (70, 535), (70, 222), label="outbox, replays", at=(250, 548))
    return d


def states() -> Drawing:
    """Draw the states of a job."""
    d = Drawing("states", 760, 250, "The states of a job, from scheduled or queued to its end")
    scheduled = d.box(10, 30, 110, 40, "scheduled", kind="other", font="m")
    queued = d.box(180, 110, 110, 40, "queued", kind="other", font="m")
    running = d.box(350, 110, 110, 40, "running", kind="broker", font="m")
    retrying = d.box(265, 30, 110, 40, "retrying", kind="other", font="m")
    succeeded = d.box(600, 20, 120, 36, "succeeded", font="m")
    dead = d.box(600, 80, 120, 36, "dead", kind="bad", font="m")
    expired = d.box(600, 140, 120, 36, "expired", kind="bad", font="m")
    cancelled = d.box(600, 200, 120, 36, "cancelled", kind="store", font="m")
    d.arrow((20, 138), queued.left(0.7), label="published", at=(60, 154))
    d.arrow((65, 8), scheduled.top(), label="published for later", at=(72, 16), anchor="start")
    d.arrow(scheduled.bottom(), (65, 118), queued.left(0.2), label="due", at=(82, 100))
    d.arrow(queued.right(), running.left())
    d.arrow(running.top(0.4), (394, 50), retrying.right(), label="failed", at=(414, 78))
    d.arrow(retrying.left(), (235, 50), queued.top(), label="due", at=(222, 78))
    d.arrow(running.right(0.2), (520, 118), (520, 38), succeeded.left())
    d.arrow(
        running.right(0.5),
        (550, 130),
        (550, 98),
        dead.left(),
        label="no attempt left",
        at=(466, 146),
        anchor="start",
    )
    d.arrow(queued.bottom(0.75), (262, 167), expired.left(0.75), label="too late", at=(340, 163))
    d.arrow(
        queued.bottom(0.45),
        (229.5, 218),
        cancelled.left(),
        label="called off, or another stands for it",
        at=(410, 212),
    )
    d.arrow(
        (720, 98),
        (745, 98),
        (745, 246),
        (200, 246),
        (200, 152),
        label="replay",
        at=(450, 241),
        dashed=True,
    )
    return d


def life() -> Drawing:
    """Draw one job with a failure, over time."""
    d = Drawing("life", 880, 330, "One job over time: published, failed once, retried, succeeded")
    lanes = {"service": 45, "broker": 110, "worker": 175, "recorder": 240, "ledger says": 300}
    for name, y in lanes.items():
        d.text(10, y + 4, name, font="h", anchor="start")
        d.lane((100, y), (870, y))
    b, w, r, t = lanes["broker"], lanes["worker"], lanes["recorder"], lanes["ledger says"]
    d.box(110, 28, 80, 34, "publish", kind="other")
    d.queue(160, b - 15, 110, 30, "default")
    d.box(270, w - 17, 120, 34, "attempt 1", "fails")
    d.queue(400, b - 15, 190, 30, "delay wheel, 15 s")
    d.queue(600, b - 15, 90, 30, "default")
    d.box(690, w - 17, 120, 34, "attempt 2", "succeeds")
    d.arrow((140, 62), (175, b - 17))
    d.arrow((212, b - 15), (180, 64), dashed=True)
    d.text(208, 78, "confirm", font="s", anchor="start")
    d.arrow((262, b + 15), (285, w - 19))
    d.arrow((370, w - 17), (420, b + 17), label="copy", at=(418, 150), anchor="start")
    d.arrow((590, b), (598, b))
    d.arrow((682, b + 15), (705, w - 19))
    for x, said, state, width in (
        (180, "tap", "queued", 100),
        (385, "record", "retrying", 100),
        (805, "record", "succeeded", 100),
    ):
        d.box(x - 30, r - 14, 60, 28, said, kind="broker", font="s")
        d.arrow((x, r + 14), (x, t - 17))
        d.box(x - width / 2, t - 15, width, 30, state, kind="store", font="m")
    d.arrow((180, b + 15), (180, r - 16))
    d.arrow((385, w + 17), (385, r - 16))
    d.arrow((805, w + 17), (805, r - 16))
    return d


def settlement() -> Drawing:
    """Draw who does what until a delivery is acked."""
    d = Drawing("settlement", 860, 310, "A delivery is acked after its outcome is confirmed")
    lanes = (("worker thread", 110), ("IO thread", 400), ("broker", 720))
    for name, x in lanes:
        d.box(x - 75, 8, 150, 30, name, kind="broker" if name == "broker" else "ours", font="h")
        d.lane((x, 38), (x, 300))
    d.box(50, 60, 120, 34, "run the actor")
    d.arrow((170, 90), (400, 105), label="delivery and outcome", at=(285, 88))
    d.box(50, 115, 120, 34, "the next job", kind="other")
    d.box(335, 110, 130, 34, "collect a group")
    d.arrow((465, 135), (720, 150), label="records and copies of the group", at=(592, 132))
    d.box(640, 155, 160, 44, "on the disks of", "a majority", kind="broker")
    d.arrow((640, 195), (402, 215), label="confirm", at=(520, 196))
    d.box(325, 220, 150, 34, "ack the deliveries")
    d.arrow((475, 243), (720, 258), label="acks, as runs of tags", at=(598, 240))
    d.box(640, 263, 160, 30, "forget them", kind="broker")
    d.text(130, 200, "A worker that dies before the ack", font="s", anchor="start")
    d.text(130, 216, "loses nothing: the broker has the", font="s", anchor="start")
    d.text(130, 232, "job, and delivers it again.", font="s", anchor="start")
    return d


def wheel() -> Drawing:
    """Draw the way of a job that waits for 12.3 s."""
    d = Drawing(
        "wheel", 900, 215, "A delay of 12.3 seconds through the wheel: two queues, no hop for zeros"
    )
    d.text(10, 22, "12.3 s = 123 units of 100 ms = 0x000007b, so the key is", anchor="start")
    d.text(390, 22, "0.0.0.0.0.7.b.any.email.send", font="m", anchor="start")
    entry = d.exchange(10, 80, 130, 36, "leveret.delay")
    six = d.exchange(170, 80, 150, 36, "leveret.delay.6")
    seven = d.queue(350, 72, 175, 52, "leveret.delay.1.7", "7 · 16 · 100 ms = 11.2 s")
    zero = d.exchange(350, 160, 150, 36, "leveret.delay.0")
    b = d.queue(530, 152, 175, 52, "leveret.delay.0.b", "11 · 100 ms = 1.1 s")
    due = d.exchange(740, 160, 120, 36, "leveret.due")
    work = d.queue(730, 80, 150, 36, "leveret.default")
    d.arrow(entry.right(), six.left())
    d.arrow(six.right(), seven.left())
    d.text(335, 62, "zeros cost no hop", font="s")
    d.arrow(seven.bottom(0.4), zero.top(0.47), label="time is up", at=(430, 148), anchor="start")
    d.arrow(zero.right(), b.left())
    d.arrow(b.right(), due.left())
    d.arrow(
        due.top(), work.bottom(0.47), label="by the rest of the key", at=(793, 140), anchor="end"
    )
    return d


def claims() -> Drawing:
    """Draw the states of a claim."""
    d = Drawing("claims", 760, 190, "A claim: running under a lease, then done or released")
    nothing = d.box(10, 50, 110, 40, "no row", kind="other")
    running = d.box(290, 40, 150, 60, "running", "lease, epoch", kind="broker", font="m")
    done = d.box(620, 50, 120, 40, "done", font="m")
    released = d.box(305, 145, 120, 36, "released", kind="store", font="m")
    d.arrow(nothing.right(), running.left(), label="claim: epoch 1")
    d.arrow(running.right(), done.left(), label="complete, with the effects")
    d.arrow(
        running.bottom(0.35),
        released.top(0.3),
        label="the run has failed",
        at=(334, 127),
        anchor="end",
    )
    d.arrow(
        released.top(0.75),
        running.bottom(0.7),
        label="claim: epoch + 1",
        at=(407, 127),
        anchor="start",
    )
    d.arrow(
        running.top(0.75),
        (402, 15),
        (328, 15),
        running.top(0.25),
        label="its lease is over: another takes over, epoch + 1",
        at=(420, 19),
        anchor="start",
    )
    return d


def lease() -> Drawing:
    """Draw how a scheduler takes over from one that has died."""
    d = Drawing("lease", 860, 240, "Scheduler A dies, and B leads within one term, with epoch 8")
    for name, y in (("A", 60), ("lease", 130), ("B", 200)):
        d.text(10, y + 4, name, font="h", anchor="start")
    d.box(70, 43, 270, 34, "leads: renews at a third of the term")
    d.box(340, 43, 70, 34, "killed", kind="bad")
    d.box(70, 113, 430, 34, "holder A, epoch 7, by the database's clock", kind="store")
    d.box(500, 113, 340, 34, "holder B, epoch 8", kind="store")
    d.box(70, 183, 430, 34, "stands by", kind="other")
    d.box(500, 183, 340, 34, "leads: fires what came meanwhile, once each")
    for x in (130, 220, 310):
        d.arrow((x, 77), (x, 111))
    d.text(318, 99, "renewed, for one term", font="s", anchor="start")
    d.arrow((500, 183), (500, 149))
    d.text(492, 168, "the term is over: taken, epoch + 1", font="s", anchor="end")
    d.arrow((375, 43), (375, 22), (670, 22), (670, 111), dashed=True)
    d.text(520, 15, "had A only slept: its next statement checks the epoch,", font="s")
    d.text(680, 40, "and fires nothing", font="s", anchor="start")
    return d


def outbox() -> Drawing:
    """Draw how a job leaves with the transaction that made it."""
    d = Drawing(
        "outbox", 860, 200, "A job and an order are committed together, and a relay publishes it"
    )
    d.frame(10, 15, 300, 170, "one transaction of your service")
    order = d.store(30, 50, 120, 56, "orders")
    row = d.store(170, 50, 120, 56, "outbox row")
    d.text(160, 135, "INSERT order; outbox.enqueue(…)", font="m")
    d.text(160, 160, "COMMIT: both, or neither", font="h")
    relay = d.box(430, 60, 150, 56, "relay", "as many as you like")
    jobs = d.exchange(690, 68, 140, 40, "leveret.jobs")
    d.arrow(row.right(), relay.left(0.35), label="SKIP LOCKED", at=(372, 70))
    d.arrow(relay.right(0.3), jobs.left(0.35), label="publish")
    d.arrow(jobs.left(0.7), relay.right(0.75), label="confirm", at=(635, 118))
    d.arrow(
        relay.bottom(0.3),
        (475, 150),
        (325, 150),
        (325, 110),
        (294, 95),
        label="then delete, and commit",
        at=(400, 166),
    )
    d.text(640, 166, "killed in between: the row is free again,", font="s", anchor="middle")
    d.text(640, 182, "and is published once more under the same id", font="s", anchor="middle")
    _ = order
    return d


def quarantine() -> Drawing:
    """Draw what becomes of a job that kills its worker."""
    d = Drawing(
        "quarantine",
        860,
        190,
        "A job that has killed two workers runs alone, and is dead if it kills again",
    )
    queue = d.queue(10, 40, 150, 40, "leveret.default")
    worker = d.box(300, 35, 140, 50, "worker", "killed, twice", kind="bad")
    lane = d.queue(240, 135, 190, 40, "….quarantine.default")
    alone = d.box(520, 130, 130, 50, "the lane", "one job at a time")
    good = d.box(720, 90, 130, 40, "any other end")
    dead = d.box(720, 145, 130, 40, "worker-killed", kind="bad", font="m")
    d.arrow(queue.right(0.3), worker.left(0.3), label="delivery")
    d.arrow(worker.left(0.75), queue.right(0.75), label="again: count + 1", at=(230, 92))
    d.arrow(
        queue.bottom(0.5),
        (85, 155),
        lane.left(),
        label="count of 2: not started, copied",
        at=(92, 120),
        anchor="start",
    )
    d.arrow(lane.right(), alone.left())
    d.arrow(
        alone.right(0.3),
        (690, 145),
        (690, 110),
        good.left(),
        label="a neighbour",
        at=(684, 104),
        anchor="end",
    )
    d.arrow(alone.right(0.7), dead.left(), label="it", at=(685, 180))
    return d


PICTURES: tuple[Callable[[], Drawing], ...] = (
    overview,
    architecture,
    states,
    life,
    settlement,
    wheel,
    claims,
    lease,
    outbox,
    quarantine,
)
