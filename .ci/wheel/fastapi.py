"""Publishing from FastAPI, with ``leveret[fastapi]``."""

# ruff: noqa: S101 - a program that fails is what is wanted

from __future__ import annotations

from fastapi import FastAPI

from leveret.fastapi import Jobs, lifespan

app = FastAPI(lifespan=lifespan)


@app.post("/orders")
async def order(jobs: Jobs) -> None:
    """Publish a job."""
    await jobs.publish("email.send", {"to": "ada@example.com"})


assert "/orders" in app.openapi()["paths"]
