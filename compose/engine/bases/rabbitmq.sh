#!/bin/sh
# Stands in for the entry point of the image `rabbitmq`: that one does the same for a user that is
# not root.
exec "$@"
