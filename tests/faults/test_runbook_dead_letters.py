"""The runbook of dead letters, run against a bad release and a recorder that is away."""

from __future__ import annotations

import pytest

from tests.support.runbooks import Page

pytestmark = pytest.mark.timeout(300)

PAGE = Page("dead-letters")
#: Orders of each kind: which the bad release cannot price, which no release can.
PLAIN, NO_CURRENCY, FINE = 30, 4, 6


def orders():
    """Return jobs that price orders: most without a currency, some in one that there is not."""
    kinds = [{}] * PLAIN + [{"currency": "XXX"}] * NO_CURRENCY + [{"currency": "SEK"}] * FINE
    return [("order.price", {"order": n + 1, **kind}) for n, kind in enumerate(kinds)]


def letters(shop, count):
    """Return the dead letters when there are so many."""
    shop.ledger.wait_value(count, "SELECT count(*) FROM dead_letters", timeout=60)
    return shop.ledger.rows("SELECT * FROM dead_letters ORDER BY id")


@PAGE.walks(
    "LeveretDeadLettersGrowing",
    "LeveretNewFailure",
    "Walk-through: dead letters after a bad release",
)
def test_what_a_bad_release_killed_is_replayed_and_the_rest_discarded(shop):
    """The groups tell its bug from bad data: one comes through after all, the other is closed."""
    shop.pool("default", release="7.2")
    shop.publish(orders())
    dead = letters(shop, PLAIN + NO_CURRENCY)
    shop.wait_states(succeeded=FINE, dead=len(dead))
    plain, odd = (
        next(x for x in dead if ("currency" in bytes(x["body"]).decode()) is wrong)
        for wrong in (False, True)
    )
    group, bad = plain["fingerprint"][:8], odd["fingerprint"][:8]
    console = shop.console(kubectl=shop.kubectl())
    with (
        PAGE.section("LeveretDeadLettersGrowing", console) as growing,
        PAGE.section("LeveretNewFailure", console) as new,
        PAGE.section("Walk-through: dead letters after a bad release", console) as story,
    ):
        groups, listed, shown, errors = growing.run(GROUP=group, LETTER=plain["id"])
        assert errors.table() == []  # these have no second attempt
        for table in (groups, story.run()[0]):
            found = [(each["group"], each["actor"], each["open"]) for each in table.table()]
            assert found == [
                (group, "order.price", str(PLAIN)),
                (bad, "order.price", str(NO_CURRENCY)),
            ]
        _, *second = new.run(GROUP=bad, LETTER=odd["id"])
        for table, letter in ((listed, shown), second, story.run(GROUP=group, LETTER=plain["id"])):
            assert "KeyError: " in table.table()[0]["error"]
            assert "return rates[currency]" in letter
            assert '"order":' in letter
        assert "KeyError: 'XXX'" in second[1]
        ((_worker, deaths, _first, _last),) = new.run(GROUP=group)[0]
        assert deaths == PLAIN

        story.run()  # rolls back
        new.run(QUEUE="default")
        one, replayed = story.run(GROUP=group, LETTER=plain["id"])
        assert "1 of 1 published" in one
        assert f"{PLAIN - 1} of {PLAIN - 1} published" in replayed
        assert f"{PLAIN - 1} succeeded" in replayed
        for (table,) in (story.run(), new.run()):
            first = table.row(group)
            assert (first["open"], first["replayed"], first["again"]) == ("0", str(PLAIN), "0")

        # To replay what is not mended makes dead letters again: they say so, with status 1.
        again, groups = story.run(may_fail=["leveret dead replay"], GROUP=bad)
        assert again.status == 1
        assert f"{NO_CURRENCY} died again" in again
        (group,) = groups.table()
        assert (group["reason"], group["again"]) == ("refused", str(NO_CURRENCY))
        (nothing,) = growing.run(may_fail=["leveret dead replay"], GROUP=bad)
        assert "no open dead letter matches" in nothing
        bad = group["group"]
        (discarded,) = story.run(GROUP=bad)
        assert discarded == f"{NO_CURRENCY} dead letters discarded\n"
        ((_at, who, action, detail), *_) = story.run()[0]
        assert (who.split(":")[0], action) == ("cli", "dead-letters.discard")
        assert detail["note"] == "orders of the load test, in no currency"
        assert detail["total"] == NO_CURRENCY
        (nothing,) = growing.run(may_fail=["leveret dead discard"], GROUP=bad)
        assert "no open dead letter matches" in nothing
        for groups, audit in (story.run(), growing.run()):
            assert groups.table() == []
            assert "every job is accounted for" in audit
    shop.wait_states(succeeded=PLAIN + FINE, dead=NO_CURRENCY)


@PAGE.walks("LeveretDeadLettersNotRecorded")
def test_dead_letters_wait_for_a_recorder(shop):
    """The queues have no consumer; with a recorder all dead letters are known, each once."""
    pool = shop.pool("default", release="7.2")
    shop.kill_recorder()
    shop.publish([("order.price", {"order": n}) for n in range(5)])
    shop.wait_queue("leveret.dead.default", messages_ready=5, consumers=0)
    shop.wait_queue("leveret.ledger", consumers=0)
    console = shop.console(kubectl=shop.kubectl())
    with PAGE.section("LeveretDeadLettersNotRecorded", console) as section:
        (queues,) = section.run()
        dead = queues.row("leveret.dead.default")
        assert (dead["ready"], dead["consumers"], dead["empty in"]) == ("5", "0", "never")
        assert queues.row("leveret.ledger")["consumers"] == "0"
        (sessions,) = section.run()
        assert not [row for row in sessions if "recorder" in row[1]]
        section.run()
        letters(shop, 5)
        shop.wait_states(dead=5)
        shop.wait_queue("leveret.dead.default", messages=0, consumers=1)
        queues, groups, audit = section.run()
        dead = queues.row("leveret.dead.default")
        assert (dead["ready"], dead["consumers"], dead["empty in"]) == ("0", "1", "-")
        (group,) = groups.table()
        assert (group["actor"], group["open"]) == ("order.price", "5")
        assert "every job is accounted for" in audit
    assert pool.metric("leveret_jobs_total", outcome="dead") == 5


def test_each_block_of_the_page_is_run():
    """A command of a runbook without a test is a hope."""
    assert PAGE.left_out() == []
