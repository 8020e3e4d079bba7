"""What each release was, frozen: what the next one starts from, and is held against.

``tests/releases/<version>/`` has what somebody who runs that release has:

==================  ===========================================================================
``database.sql``    its tables as its migrations made them, with telling rows in each
``wire.json``       a message of each kind that its processes write, and how it read them
``topology.json``   what stands in its broker
``surface.json``    what a user names: settings, commands, metrics, headers, public names, …
``openapi.json``    its HTTP API
``release.json``    the version, and the revision of its database
==================  ===========================================================================

A release in the making is frozen anew whenever it changes (``make freeze``), and a test says when
that is due. With its date in ``CHANGELOG.md`` it is out: its folder stays as it is from then on,
and what the next release takes from its users has to be in ``removed.json``, with what to do
instead, and in the changelog.
"""
