"""What KEDA asks RabbitMQ, by the triggers in k8s/, is answered to the user that it asks as."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pika

from leveret import names
from leveret.publisher import Publisher
from tests.support.manifests import of_kind, overlay
from tests.support.waiting import wait_until

PAGE_SIZE = 100


def backlog(vhost, pool: str, count: str = "messages") -> int:
    """Add up, as KEDA does with `useRegex`, the messages of the queues that a trigger names."""
    [trigger] = [
        one
        for one in of_kind(overlay("prod"), "ScaledObject")[f"leveret-worker-{pool}"]["spec"][
            "triggers"
        ]
        if one["type"] == "rabbitmq"
    ]
    asked = trigger["metadata"]
    assert (asked["protocol"], asked["mode"], asked["useRegex"]) == ("http", "QueueLength", "true")
    url = httpx.URL(vhost.management_url_for("monitor"))
    answer = httpx.get(
        url.copy_with(
            userinfo=b"", path=f"/api/queues/{quote(vhost.name, safe='')}"
        ).copy_merge_params(
            {
                "page": 1,
                "use_regex": "true",
                "pagination": "false",
                "name": asked["queueName"],
                "page_size": PAGE_SIZE,
            }
        ),
        auth=(url.username, url.password),
        timeout=30,
    )
    answer.raise_for_status()
    found = {queue["name"]: queue for queue in answer.json()["items"]}
    assert found.keys() == {names.work_queue(pool), names.quarantine_queue(pool)}
    return sum(queue.get(count, 0) for queue in found.values())


def test_the_backlog_counts_what_waits_for_a_pool_or_is_held_by_it(fresh_vhost):
    """Each trigger counts its own pool's jobs, and goes on counting one that is delivered."""
    vhost = fresh_vhost.declare({"email.send": "default"})
    with Publisher(vhost.url("publisher")) as publisher:
        for count, pool in enumerate(names.DEFAULT_QUEUES):
            for n in range(count):
                publisher.send("email.send", {"n": n}, queue=pool)
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url("worker")))
    try:
        held, _, _ = connection.channel().basic_get(names.work_queue("bulk"))
        assert held is not None
        wait_until(
            lambda: backlog(vhost, "bulk", "messages_unacknowledged") == 1,
            timeout=30,
            what="the broker knows that the job is held",
        )
        wait_until(
            lambda: [backlog(vhost, pool) for pool in names.DEFAULT_QUEUES] == [0, 1, 2, 3],
            timeout=30,
            what="the broker has counted",
        )
    finally:
        connection.close()
