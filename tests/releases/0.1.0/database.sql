CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE api_keys (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash BYTEA NOT NULL,
    scopes TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    created_by TEXT NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id)
);
CREATE TABLE attempts (
    job_id TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    run INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    worker TEXT,
    queue TEXT,
    outcome TEXT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    reason TEXT,
    error_type TEXT,
    error TEXT,
    traceback TEXT,
    CONSTRAINT attempts_pkey PRIMARY KEY (job_id, created_at, run, attempt, started_at)
)
 PARTITION BY RANGE (created_at);
CREATE INDEX attempts_worker_idx ON attempts (worker) WHERE outcome = 'running';
CREATE TABLE audit_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT,
    outcome TEXT NOT NULL,
    detail JSON,
    address TEXT,
    CONSTRAINT audit_log_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_log_at_idx ON audit_log (at);
CREATE TABLE cancellations (
    job_id TEXT NOT NULL,
    run INTEGER DEFAULT 0 NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    requested_by TEXT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    closed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT cancellations_pkey PRIMARY KEY (job_id)
);
CREATE INDEX cancellations_closed_at_idx ON cancellations (closed_at) WHERE closed_at IS NULL;
CREATE INDEX cancellations_requested_at_idx ON cancellations (requested_at);
CREATE TABLE checkpoints (
    job_id TEXT NOT NULL,
    data BYTEA NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT checkpoints_pkey PRIMARY KEY (job_id)
);
CREATE INDEX checkpoints_updated_at_idx ON checkpoints (updated_at);
CREATE TABLE claims (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL,
    state TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    worker TEXT,
    lease_until TIMESTAMP WITH TIME ZONE,
    claimed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    done_at TIMESTAMP WITH TIME ZONE,
    result BYTEA,
    expires_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT claims_pkey PRIMARY KEY (actor, key),
    CONSTRAINT claims_state_check CHECK (state IN ('running', 'done', 'released'))
);
CREATE INDEX claims_expires_at_idx ON claims (expires_at);
CREATE TABLE dead_letter_groups (
    fingerprint TEXT NOT NULL,
    actor TEXT,
    reason TEXT NOT NULL,
    error_type TEXT,
    error TEXT,
    traceback TEXT,
    first_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE NOT NULL,
    total BIGINT DEFAULT 0 NOT NULL,
    open BIGINT DEFAULT 0 NOT NULL,
    replayed BIGINT DEFAULT 0 NOT NULL,
    discarded BIGINT DEFAULT 0 NOT NULL,
    superseded BIGINT DEFAULT 0 NOT NULL,
    died_again BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT dead_letter_groups_pkey PRIMARY KEY (fingerprint)
);
CREATE INDEX dead_letter_groups_page_idx ON dead_letter_groups (last_at DESC, fingerprint DESC);
CREATE TABLE idempotent_requests (
    api_key TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BYTEA NOT NULL,
    status SMALLINT NOT NULL,
    answer BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT idempotent_requests_pkey PRIMARY KEY (api_key, key)
);
CREATE INDEX idempotent_requests_created_at_idx ON idempotent_requests (created_at);
CREATE TABLE job_ids (
    id TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT job_ids_pkey PRIMARY KEY (id)
);
CREATE INDEX job_ids_created_at_idx ON job_ids (created_at);
CREATE TABLE jobs (
    id TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    actor TEXT,
    queue TEXT,
    routing_key TEXT,
    content_type TEXT,
    body BYTEA,
    headers JSON,
    properties BYTEA,
    priority SMALLINT,
    correlation_id TEXT,
    app_id TEXT,
    idempotency_key TEXT,
    traceparent TEXT,
    expires_at TIMESTAMP WITH TIME ZONE,
    published_at TIMESTAMP WITH TIME ZONE,
    state TEXT NOT NULL,
    run INTEGER DEFAULT 0 NOT NULL,
    attempt INTEGER DEFAULT 1 NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    worker TEXT,
    reason TEXT,
    error_type TEXT,
    error TEXT,
    result BYTEA,
    result_ref TEXT,
    result_lost TEXT,
    progress DOUBLE PRECISION,
    progress_note TEXT,
    progress_at TIMESTAMP WITH TIME ZONE,
    cancel_requested_at TIMESTAMP WITH TIME ZONE,
    settled SMALLINT DEFAULT 0 NOT NULL,
    event_at TIMESTAMP WITH TIME ZONE DEFAULT '-infinity' NOT NULL,
    kind SMALLINT DEFAULT 0 NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT jobs_pkey PRIMARY KEY (id, created_at),
    CONSTRAINT jobs_state_check CHECK (state IN ('scheduled', 'queued', 'running', 'retrying', 'succeeded', 'dead', 'cancelled', 'expired'))
)
 PARTITION BY RANGE (created_at);
CREATE INDEX jobs_queue_idx ON jobs (COALESCE(queue, ''::text), state, created_at DESC, id DESC);
CREATE INDEX jobs_actor_idx ON jobs (actor, COALESCE(queue, ''::text), state, created_at DESC, id DESC);
CREATE INDEX jobs_correlation_idx ON jobs (correlation_id, state, created_at DESC, id DESC) WHERE correlation_id IS NOT NULL;
CREATE INDEX jobs_idempotency_idx ON jobs (idempotency_key, created_at DESC, id DESC) WHERE idempotency_key IS NOT NULL;
CREATE TABLE ledger_rejects (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    received_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    queue TEXT NOT NULL,
    routing_key TEXT,
    error TEXT NOT NULL,
    properties BYTEA,
    body BYTEA NOT NULL,
    CONSTRAINT ledger_rejects_pkey PRIMARY KEY (id)
);
CREATE TABLE leveret_outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    job_id TEXT DEFAULT (gen_random_uuid())::text NOT NULL,
    actor TEXT NOT NULL,
    queue TEXT,
    body BYTEA NOT NULL,
    options JSON,
    due_at TIMESTAMP WITH TIME ZONE,
    hold_until TIMESTAMP WITH TIME ZONE DEFAULT '-infinity' NOT NULL,
    properties BYTEA,
    routing_key TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    error TEXT,
    CONSTRAINT leveret_outbox_pkey PRIMARY KEY (id)
)
 WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000);
CREATE INDEX leveret_outbox_held_idx ON leveret_outbox (hold_until, id) WHERE hold_until > '-infinity';
CREATE INDEX leveret_outbox_ready_idx ON leveret_outbox (id) WHERE hold_until = '-infinity';
CREATE TABLE replays (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    requested_by TEXT NOT NULL,
    selection JSON NOT NULL,
    rate DOUBLE PRECISION,
    edits JSON,
    state TEXT DEFAULT 'running' NOT NULL,
    total INTEGER DEFAULT 0 NOT NULL,
    published INTEGER DEFAULT 0 NOT NULL,
    refused INTEGER DEFAULT 0 NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT replays_pkey PRIMARY KEY (id),
    CONSTRAINT replays_state_check CHECK (state IN ('running', 'done', 'cancelled'))
);
CREATE INDEX replays_state_idx ON replays (state) WHERE state = 'running';
CREATE TABLE unique_jobs (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    version BIGINT NOT NULL,
    job_id TEXT,
    published_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    done_at TIMESTAMP WITH TIME ZONE,
    held_until TIMESTAMP WITH TIME ZONE,
    latest_id TEXT,
    latest_at TIMESTAMP WITH TIME ZONE,
    until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT unique_jobs_pkey PRIMARY KEY (actor, key)
);
CREATE INDEX unique_jobs_until_idx ON unique_jobs (until);
CREATE UNLOGGED TABLE watches (
    job_id TEXT NOT NULL,
    watcher TEXT NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT watches_pkey PRIMARY KEY (job_id, watcher)
);
CREATE TABLE workers (
    id TEXT NOT NULL,
    queues TEXT[] NOT NULL,
    threads INTEGER NOT NULL,
    running TEXT[] NOT NULL,
    first_seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    beat_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    gone_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT workers_pkey PRIMARY KEY (id)
);
CREATE INDEX workers_seen_at_idx ON workers (seen_at);
CREATE TABLE dead_letters (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    key TEXT NOT NULL,
    job_id TEXT,
    job_created_at TIMESTAMP WITH TIME ZONE,
    run INTEGER DEFAULT 0 NOT NULL,
    attempt INTEGER DEFAULT 1 NOT NULL,
    actor TEXT,
    queue TEXT,
    routing_key TEXT NOT NULL,
    exchange TEXT,
    reason TEXT NOT NULL,
    error_type TEXT,
    error TEXT,
    traceback TEXT,
    fingerprint TEXT NOT NULL,
    body BYTEA NOT NULL,
    properties BYTEA NOT NULL,
    headers JSON,
    dead_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    state TEXT DEFAULT 'open' NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    resolved_by TEXT,
    replay_id BIGINT,
    new_job_id TEXT,
    refusal TEXT,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (id),
    CONSTRAINT dead_letters_state_check CHECK (state IN ('open', 'replaying', 'replayed', 'discarded', 'superseded')),
    CONSTRAINT dead_letters_replay_id_fkey FOREIGN KEY(replay_id) REFERENCES replays (id),
    CONSTRAINT dead_letters_key_key UNIQUE (key)
);
CREATE INDEX dead_letters_actor_state_idx ON dead_letters (actor, state, dead_at DESC, id DESC) INCLUDE (queue, reason, fingerprint);
CREATE INDEX dead_letters_fingerprint_state_idx ON dead_letters (fingerprint, state, dead_at DESC, id DESC) INCLUDE (actor, queue, reason);
CREATE INDEX dead_letters_page_idx ON dead_letters (dead_at DESC, id DESC) INCLUDE (state, actor, queue, reason, fingerprint);
CREATE INDEX dead_letters_job_id_idx ON dead_letters (job_id);
CREATE INDEX dead_letters_replay_id_state_id_idx ON dead_letters (replay_id, state, id) WHERE replay_id IS NOT NULL;
CREATE INDEX dead_letters_state_idx ON dead_letters (state, dead_at DESC, id DESC) INCLUDE (actor, queue, reason, fingerprint);
CREATE FUNCTION leveret_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('leveret_outbox', ''); RETURN NULL; END $$;
CREATE TRIGGER leveret_outbox_notify AFTER INSERT ON leveret_outbox FOR EACH STATEMENT EXECUTE FUNCTION leveret_outbox_notify();
INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;
CREATE TABLE job_rollups (
    bucket TIMESTAMP WITH TIME ZONE NOT NULL,
    actor TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs BIGINT NOT NULL,
    retries BIGINT NOT NULL,
    run_seconds DOUBLE PRECISION NOT NULL,
    queue_seconds DOUBLE PRECISION NOT NULL,
    run_histogram BIGINT[] NOT NULL,
    queue_histogram BIGINT[] NOT NULL,
    CONSTRAINT job_rollups_pkey PRIMARY KEY (bucket, actor, queue, state)
);
CREATE TABLE rollup_marks (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    bucket TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT rollup_marks_pkey PRIMARY KEY (id)
);
CREATE INDEX jobs_finished_idx ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE leases (
    name TEXT NOT NULL,
    holder TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    acquired_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT leases_pkey PRIMARY KEY (name)
);
CREATE TABLE schedule_slots (
    schedule TEXT NOT NULL,
    slot TIMESTAMP WITH TIME ZONE NOT NULL,
    until TIMESTAMP WITH TIME ZONE,
    count INTEGER DEFAULT 1,
    outcome TEXT DEFAULT 'fired' NOT NULL,
    job_id TEXT,
    cause TEXT DEFAULT 'schedule' NOT NULL,
    asked_by TEXT,
    reason TEXT,
    epoch BIGINT,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    fired_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT schedule_slots_pkey PRIMARY KEY (schedule, slot),
    CONSTRAINT schedule_slots_cause_check CHECK (cause IN ('schedule', 'run', 'backfill', 'repair')),
    CONSTRAINT schedule_slots_outcome_check CHECK (outcome IN ('fired', 'skipped', 'queued'))
);
CREATE INDEX schedule_slots_fired_at_idx ON schedule_slots (fired_at);
CREATE INDEX schedule_slots_job_id_idx ON schedule_slots (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX schedule_slots_schedule_slot_idx ON schedule_slots (schedule, slot) WHERE outcome = 'queued';
CREATE INDEX schedule_slots_unfired_idx ON schedule_slots (schedule, slot) WHERE outcome <> 'fired';
CREATE INDEX schedule_slots_runs_idx ON schedule_slots (schedule, slot) WHERE until IS NOT NULL;
CREATE TABLE schedules (
    name TEXT NOT NULL,
    origin TEXT NOT NULL,
    description TEXT,
    actor TEXT NOT NULL,
    queue TEXT,
    body BYTEA NOT NULL,
    options JSON,
    trigger TEXT NOT NULL,
    expression TEXT NOT NULL,
    timezone TEXT DEFAULT 'UTC' NOT NULL,
    anchor_at TIMESTAMP WITH TIME ZONE,
    jitter_seconds DOUBLE PRECISION DEFAULT 0 NOT NULL,
    start_at TIMESTAMP WITH TIME ZONE,
    end_at TIMESTAMP WITH TIME ZONE,
    missed TEXT DEFAULT 'once' NOT NULL,
    missed_window_seconds DOUBLE PRECISION,
    overlap TEXT DEFAULT 'allow' NOT NULL,
    dst_skipped TEXT DEFAULT 'next' NOT NULL,
    dst_doubled TEXT DEFAULT 'first' NOT NULL,
    paused_at TIMESTAMP WITH TIME ZONE,
    paused_by TEXT,
    since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    last_slot TIMESTAMP WITH TIME ZONE,
    next_due_at TIMESTAMP WITH TIME ZONE,
    version BIGINT DEFAULT 1 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    created_by TEXT NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_by TEXT,
    CONSTRAINT schedules_pkey PRIMARY KEY (name),
    CONSTRAINT schedules_dst_doubled_check CHECK (dst_doubled IN ('first', 'both')),
    CONSTRAINT schedules_dst_skipped_check CHECK (dst_skipped IN ('skip', 'next')),
    CONSTRAINT schedules_missed_check CHECK (missed IN ('skip', 'once', 'all')),
    CONSTRAINT schedules_origin_check CHECK (origin IN ('code', 'file', 'api')),
    CONSTRAINT schedules_overlap_check CHECK (overlap IN ('allow', 'skip', 'queue')),
    CONSTRAINT schedules_trigger_check CHECK (trigger IN ('cron', 'interval', 'date'))
);
CREATE INDEX schedules_next_due_at_idx ON schedules (next_due_at) WHERE paused_at IS NULL;
UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';
CREATE INDEX jobs_due_idx ON jobs (due_at) WHERE state IN ('scheduled', 'retrying');
UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';
CREATE TABLE jobs_p20260130 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260130 FOR VALUES FROM ('2026-01-30T00:00:00+00:00') TO ('2026-01-31T00:00:00+00:00');
CREATE TABLE attempts_p20260130 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260130 FOR VALUES FROM ('2026-01-30T00:00:00+00:00') TO ('2026-01-31T00:00:00+00:00');
CREATE TABLE jobs_p20260131 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260131 FOR VALUES FROM ('2026-01-31T00:00:00+00:00') TO ('2026-02-01T00:00:00+00:00');
CREATE TABLE attempts_p20260131 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260131 FOR VALUES FROM ('2026-01-31T00:00:00+00:00') TO ('2026-02-01T00:00:00+00:00');
CREATE TABLE jobs_p20260201 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260201 FOR VALUES FROM ('2026-02-01T00:00:00+00:00') TO ('2026-02-02T00:00:00+00:00');
CREATE TABLE attempts_p20260201 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260201 FOR VALUES FROM ('2026-02-01T00:00:00+00:00') TO ('2026-02-02T00:00:00+00:00');
CREATE TABLE jobs_p20260202 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260202 FOR VALUES FROM ('2026-02-02T00:00:00+00:00') TO ('2026-02-03T00:00:00+00:00');
CREATE TABLE attempts_p20260202 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260202 FOR VALUES FROM ('2026-02-02T00:00:00+00:00') TO ('2026-02-03T00:00:00+00:00');
CREATE TABLE jobs_p20260203 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260203 FOR VALUES FROM ('2026-02-03T00:00:00+00:00') TO ('2026-02-04T00:00:00+00:00');
CREATE TABLE attempts_p20260203 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260203 FOR VALUES FROM ('2026-02-03T00:00:00+00:00') TO ('2026-02-04T00:00:00+00:00');
CREATE TABLE jobs_p20260204 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260204 FOR VALUES FROM ('2026-02-04T00:00:00+00:00') TO ('2026-02-05T00:00:00+00:00');
CREATE TABLE attempts_p20260204 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260204 FOR VALUES FROM ('2026-02-04T00:00:00+00:00') TO ('2026-02-05T00:00:00+00:00');
CREATE TABLE jobs_p20260205 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260205 FOR VALUES FROM ('2026-02-05T00:00:00+00:00') TO ('2026-02-06T00:00:00+00:00');
CREATE TABLE attempts_p20260205 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260205 FOR VALUES FROM ('2026-02-05T00:00:00+00:00') TO ('2026-02-06T00:00:00+00:00');
CREATE TABLE jobs_p20260206 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260206 FOR VALUES FROM ('2026-02-06T00:00:00+00:00') TO ('2026-02-07T00:00:00+00:00');
CREATE TABLE attempts_p20260206 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260206 FOR VALUES FROM ('2026-02-06T00:00:00+00:00') TO ('2026-02-07T00:00:00+00:00');
CREATE TABLE jobs_p20260207 (LIKE jobs INCLUDING ALL);
ALTER TABLE jobs ATTACH PARTITION jobs_p20260207 FOR VALUES FROM ('2026-02-07T00:00:00+00:00') TO ('2026-02-08T00:00:00+00:00');
CREATE TABLE attempts_p20260207 (LIKE attempts INCLUDING ALL);
ALTER TABLE attempts ATTACH PARTITION attempts_p20260207 FOR VALUES FROM ('2026-02-07T00:00:00+00:00') TO ('2026-02-08T00:00:00+00:00');
INSERT INTO replays ("id", "created_at", "requested_by", "selection", "rate", "edits", "state", "total", "published", "refused", "next_at", "finished_at") OVERRIDING SYSTEM VALUE VALUES ('1', '2026-01-31 12:00:00+00', 'cli:tess@test', '{"actor": "note.fail"}', NULL, NULL, 'done', '1', '1', '0', NULL, '2026-01-31 12:00:00+00');
SELECT setval(pg_get_serial_sequence('replays', 'id'), (SELECT max(id) FROM replays));
INSERT INTO api_keys ("id", "name", "hash", "scopes", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at") VALUES ('00f0ca5e0001', 'frozen', E'\\x60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55', '{admin}', '2026-01-31 12:00:00+00', 'cli:tess@test', NULL, NULL, NULL);
INSERT INTO attempts ("job_id", "created_at", "run", "attempt", "started_at", "ended_at", "worker", "queue", "outcome", "due_at", "reason", "error_type", "error", "traceback") VALUES ('019c13ec-9e00-7000-8000-000000000001', '2026-01-31 12:00:00+00', '0', '1', '2026-01-31 12:00:01+00', '2026-01-31 12:00:02+00', 'worker@frozen:1', 'default', 'succeeded', NULL, NULL, NULL, NULL, NULL);
INSERT INTO attempts ("job_id", "created_at", "run", "attempt", "started_at", "ended_at", "worker", "queue", "outcome", "due_at", "reason", "error_type", "error", "traceback") VALUES ('019c13ec-9e00-7000-8000-000000000003', '2026-01-31 12:00:00+00', '0', '1', '2026-01-31 12:00:01+00', NULL, 'worker@frozen:1', 'default', 'running', NULL, NULL, NULL, NULL, NULL);
INSERT INTO attempts ("job_id", "created_at", "run", "attempt", "started_at", "ended_at", "worker", "queue", "outcome", "due_at", "reason", "error_type", "error", "traceback") VALUES ('019c13ec-9e00-7000-8000-000000000004', '2026-01-31 12:00:00+00', '0', '1', '2026-01-31 12:00:01+00', '2026-01-31 12:00:02+00', 'worker@frozen:1', 'default', 'retrying', '2026-01-31 12:00:02.5+00', NULL, 'builtins.OSError', 'no mail server', 'builtins.OSError: no mail server');
INSERT INTO attempts ("job_id", "created_at", "run", "attempt", "started_at", "ended_at", "worker", "queue", "outcome", "due_at", "reason", "error_type", "error", "traceback") VALUES ('019c13ec-9e00-7000-8000-000000000005', '2026-01-31 12:00:00+00', '0', '1', '2026-01-31 12:00:01+00', '2026-01-31 12:00:02+00', 'worker@frozen:1', 'default', 'snoozed', '2026-01-31 12:00:02.3+00', NULL, NULL, 'not yet', NULL);
INSERT INTO attempts ("job_id", "created_at", "run", "attempt", "started_at", "ended_at", "worker", "queue", "outcome", "due_at", "reason", "error_type", "error", "traceback") VALUES ('019c13ec-9e00-7000-8000-000000000007', '2026-01-31 12:00:00+00', '0', '1', '2026-01-31 12:00:02+00', '2026-01-31 12:00:02+00', 'worker@frozen:1', 'default', 'quarantined', NULL, NULL, NULL, NULL, NULL);
INSERT INTO attempts ("job_id", "created_at", "run", "attempt", "started_at", "ended_at", "worker", "queue", "outcome", "due_at", "reason", "error_type", "error", "traceback") VALUES ('019c13ec-9e00-7000-8000-000000000011', '2026-01-31 12:00:00+00', '0', '1', '2026-01-31 12:00:01+00', '2026-01-31 12:00:02+00', 'worker@frozen:1', 'default', 'dead', NULL, 'exhausted', 'builtins.OSError', 'no mail server', 'builtins.OSError: no mail server');
INSERT INTO audit_log ("id", "at", "who", "action", "target", "outcome", "detail", "address") OVERRIDING SYSTEM VALUE VALUES ('1', '2026-01-31 12:00:00+00', 'cli:tess@test', 'key.create', 'frozen', 'done', '{"scopes": ["admin"]}', NULL);
INSERT INTO audit_log ("id", "at", "who", "action", "target", "outcome", "detail", "address") OVERRIDING SYSTEM VALUE VALUES ('2', '2026-01-31 12:00:00+00', 'cli:tess@test', 'schedule.create', 'nightly', 'done', '{"origin": "api", "actor": "note.keep", "trigger": "cron", "expression": "0 3 * * *", "timezone": "UTC"}', NULL);
SELECT setval(pg_get_serial_sequence('audit_log', 'id'), (SELECT max(id) FROM audit_log));
INSERT INTO cancellations ("job_id", "run", "requested_at", "requested_by", "due_at", "closed_at") VALUES ('019c13ec-9e00-7000-8000-00000000000f', '0', '2026-01-31 12:00:00+00', 'cli:tess@test', NULL, NULL);
INSERT INTO checkpoints ("job_id", "data", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000003', E'\\x7b2270616765223a20377d', '2026-01-31 12:00:00+00');
INSERT INTO claims ("actor", "key", "job_id", "state", "epoch", "worker", "lease_until", "claimed_at", "done_at", "result", "expires_at") VALUES ('note.keep', 'payment-0', '019c13ec-9e00-7000-8000-000000000001', 'done', '1', NULL, NULL, '2026-01-31 12:00:00+00', '2026-01-31 12:00:00+00', E'\\x7b22726573756c74223a207b226b657074223a202261227d7d', '2026-03-02 12:00:00+00');
INSERT INTO claims ("actor", "key", "job_id", "state", "epoch", "worker", "lease_until", "claimed_at", "done_at", "result", "expires_at") VALUES ('note.keep', 'payment-1', '019c13ec-9e00-7000-8000-00000000000c', 'running', '1', 'worker@frozen:1', '2026-01-31 12:00:30+00', '2026-01-31 12:00:00+00', NULL, NULL, NULL);
INSERT INTO dead_letter_groups ("fingerprint", "actor", "reason", "error_type", "error", "traceback", "first_at", "last_at", "total", "open", "replayed", "discarded", "superseded", "died_again") VALUES ('e249505e270b7bf6', 'note.fail', 'exhausted', 'builtins.OSError', 'no mail server', 'builtins.OSError: no mail server', '2026-01-31 12:00:00+00', '2026-01-31 12:00:00+00', '1', '1', '0', '0', '0', '0');
INSERT INTO dead_letters ("id", "key", "job_id", "job_created_at", "run", "attempt", "actor", "queue", "routing_key", "exchange", "reason", "error_type", "error", "traceback", "fingerprint", "body", "properties", "headers", "dead_at", "stored_at", "state", "resolved_at", "resolved_by", "replay_id", "new_job_id", "refusal") OVERRIDING SYSTEM VALUE VALUES ('1', '019c13ec-9e00-7000-8000-00000000f000', '019c13ec-9e00-7000-8000-000000000011', '2026-01-31 12:00:00+00', '0', '1', 'note.fail', 'default', 'default.note.fail', NULL, 'exhausted', 'builtins.OSError', 'no mail server', 'builtins.OSError: no mail server', 'e249505e270b7bf6', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', E'\\xb0e0106170706c69636174696f6e2f6a736f6e0000001711782d6c6576657265742d617474656d70744900000001022430313963313365632d396530302d373030302d383030302d30303030303030303030313100000000697deec0096e6f74652e6661696c', '{"x-leveret-attempt":1}', '2026-01-31 12:00:00+00', '2026-01-31 12:00:00+00', 'open', NULL, NULL, NULL, NULL, NULL);
SELECT setval(pg_get_serial_sequence('dead_letters', 'id'), (SELECT max(id) FROM dead_letters));
INSERT INTO idempotent_requests ("api_key", "key", "digest", "status", "answer", "created_at") VALUES ('00f0ca5e0001', 'order-1', E'\\x0101010101010101010101010101010101010101010101010101010101010101', '202', E'\\x7b226a6f625f6964223a20226f726465722d34373131227d', '2026-01-31 12:00:00+00');
INSERT INTO job_ids ("id", "created_at") VALUES ('order-4711', '2026-01-31 12:00:00+00');
INSERT INTO job_rollups ("bucket", "actor", "queue", "state", "jobs", "retries", "run_seconds", "queue_seconds", "run_histogram", "queue_histogram") VALUES ('2026-01-31 12:00:00+00', 'note.keep', 'default', 'succeeded', '1', '0', '1', '1', '{0,1}', '{0,1}');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000001', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x90e0106170706c69636174696f6e2f6a736f6e022430313963313365632d396530302d373030302d383030302d30303030303030303030303100000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'succeeded', '0', '1', NULL, '2026-01-31 12:00:01+00', '2026-01-31 12:00:02+00', 'worker@frozen:1', NULL, NULL, NULL, E'\\x7b226b657074223a22c3bc6ec3afc2a96f646520e29c93227d', NULL, NULL, NULL, NULL, NULL, NULL, '2', '2026-01-31 12:00:02+00', '9', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000002', '2026-01-31 12:00:00+00', 'note.keep', NULL, 'any.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x9ce8106170706c69636174696f6e2f6a736f6e0203076f726465722d312430313963313365632d396530302d373030302d383030302d30303030303030303030303200000000697deec0096e6f74652e6b6565700473686f70', '3', 'order-1', 'shop', NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000003', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x90e0106170706c69636174696f6e2f6a736f6e022430313963313365632d396530302d373030302d383030302d30303030303030303030303300000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'running', '0', '1', NULL, '2026-01-31 12:00:01+00', NULL, 'worker@frozen:1', NULL, NULL, NULL, NULL, NULL, NULL, '0.5', 'half of it', '2026-01-31 12:00:01.5+00', NULL, '0', '2026-01-31 12:00:01+00', '1', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000004', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"x-leveret-max-retries":2}', E'\\xb0e0106170706c69636174696f6e2f6a736f6e0000001b15782d6c6576657265742d6d61782d726574726965734900000002022430313963313365632d396530302d373030302d383030302d30303030303030303030303400000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'retrying', '0', '1', '2026-01-31 12:00:02.5+00', '2026-01-31 12:00:01+00', NULL, 'worker@frozen:1', NULL, 'builtins.OSError', 'no mail server', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '2026-01-31 12:00:02+00', '5', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000005', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x90e0106170706c69636174696f6e2f6a736f6e022430313963313365632d396530302d373030302d383030302d30303030303030303030303500000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'scheduled', '0', '1', '2026-01-31 12:00:02.3+00', '2026-01-31 12:00:01+00', NULL, 'worker@frozen:1', NULL, NULL, 'not yet', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '2026-01-31 12:00:02+00', '4', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000006', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x90e0106170706c69636174696f6e2f6a736f6e022430313963313365632d396530302d373030302d383030302d30303030303030303030303600000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000007', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x90e0106170706c69636174696f6e2f6a736f6e022430313963313365632d396530302d373030302d383030302d30303030303030303030303700000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '2026-01-31 12:00:02+00', '3', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000009', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"x-leveret-run":1}', E'\\xb0e0106170706c69636174696f6e2f6a736f6e000000130d782d6c6576657265742d72756e4900000001022430313963313365632d396530302d373030302d383030302d30303030303030303030303900000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '1', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-00000000000a', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"vendor=1"}', E'\\xb0e0106170706c69636174696f6e2f6a736f6e000000600b7472616365706172656e74530000003730302d30616637363531393136636434336464383434386562323131633830333139632d623761643662373136393230333333312d30310a74726163657374617465530000000876656e646f723d31022430313963313365632d396530302d373030302d383030302d30303030303030303030306100000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-00000000000b', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"x-leveret-schedule":"nightly","x-leveret-slot":"2026-01-31T12:00:00.000Z"}', E'\\xb0e0106170706c69636174696f6e2f6a736f6e0000004b12782d6c6576657265742d7363686564756c6553000000076e696768746c790e782d6c6576657265742d736c6f745300000018323032362d30312d33315431323a30303a30302e3030305a022430313963313365632d396530302d373030302d383030302d30303030303030303030306200000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-00000000000c', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"x-leveret-idempotency-key":"payment-1","x-leveret-once":true}', E'\\xb0e0106170706c69636174696f6e2f6a736f6e0000003919782d6c6576657265742d6964656d706f74656e63792d6b657953000000097061796d656e742d310e782d6c6576657265742d6f6e63657401022430313963313365632d396530302d373030302d383030302d30303030303030303030306300000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, 'payment-1', NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-00000000000d', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"x-leveret-idempotency-key":"report-1","x-leveret-unique-for":3600,"x-leveret-unique-until":"done","x-leveret-on-conflict":"replace"}', E'\\xb0e0106170706c69636174696f6e2f6a736f6e0000008319782d6c6576657265742d6964656d706f74656e63792d6b657953000000087265706f72742d3114782d6c6576657265742d756e697175652d666f724900000e1016782d6c6576657265742d756e697175652d756e74696c5300000004646f6e6515782d6c6576657265742d6f6e2d636f6e666c69637453000000077265706c616365022430313963313365632d396530302d373030302d383030302d30303030303030303030306400000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, 'report-1', NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-00000000000e', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"x-leveret-expires-at":"2026-01-31T13:00:00.000Z"}', E'\\xb0e0106170706c69636174696f6e2f6a736f6e0000003214782d6c6576657265742d657870697265732d61745300000018323032362d30312d33315431333a30303a30302e3030305a022430313963313365632d396530302d373030302d383030302d30303030303030303030306500000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, '2026-01-31 13:00:00+00', '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-00000000000f', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x90e0106170706c69636174696f6e2f6a736f6e022430313963313365632d396530302d373030302d383030302d30303030303030303030306600000000697deec0096e6f74652e6b656570', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('019c13ec-9e00-7000-8000-000000000011', '2026-01-31 12:00:00+00', 'note.fail', 'default', 'default.note.fail', 'application/json', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, E'\\x90e0106170706c69636174696f6e2f6a736f6e022430313963313365632d396530302d373030302d383030302d30303030303030303030313100000000697deec0096e6f74652e6661696c', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-31 12:00:00+00', 'dead', '0', '1', NULL, '2026-01-31 12:00:01+00', '2026-01-31 12:00:02+00', 'worker@frozen:1', 'exhausted', 'builtins.OSError', 'no mail server', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '1', '2026-01-31 12:00:02+00', '8', '2026-01-31 12:00:00+00');
INSERT INTO jobs ("id", "created_at", "actor", "queue", "routing_key", "content_type", "body", "headers", "properties", "priority", "correlation_id", "app_id", "idempotency_key", "traceparent", "expires_at", "published_at", "state", "run", "attempt", "due_at", "started_at", "finished_at", "worker", "reason", "error_type", "error", "result", "result_ref", "result_lost", "progress", "progress_note", "progress_at", "cancel_requested_at", "settled", "event_at", "kind", "updated_at") VALUES ('order-4711', '2026-01-31 12:00:00+00', 'note.keep', 'default', 'default.note.keep', NULL, E'\\x7b2274657874223a202261222c20226e223a20327d', NULL, E'\\x00800a6f726465722d34373131', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'queued', '0', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '-infinity', '0', '2026-01-31 12:00:00+00');
INSERT INTO leases ("name", "holder", "epoch", "acquired_at", "expires_at") VALUES ('scheduler', 'scheduler@frozen:1', '3', '2026-01-31 11:00:00+00', '2026-01-31 12:00:00+00');
INSERT INTO ledger_rejects ("id", "received_at", "queue", "routing_key", "error", "properties", "body") OVERRIDING SYSTEM VALUE VALUES ('1', '2026-01-31 12:00:00+00', 'leveret.ledger', '', 'the body is not an object with a list of records', E'\\x9020106170706c69636174696f6e2f6a736f6e020f6c6576657265742e7265636f726473', E'\\x7b2276223a312c227265636f726473223a226e6f6e65227d');
SELECT setval(pg_get_serial_sequence('ledger_rejects', 'id'), (SELECT max(id) FROM ledger_rejects));
INSERT INTO leveret_outbox ("id", "job_id", "actor", "queue", "body", "options", "due_at", "hold_until", "properties", "routing_key", "created_at", "error") OVERRIDING SYSTEM VALUE VALUES ('1', '019c13ec-9e00-7000-8000-000000000013', 'note.keep', 'default', E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', '{"priority": 5, "correlation_id": "order-2"}', NULL, '-infinity', NULL, NULL, '2026-01-31 12:00:00+00', NULL);
INSERT INTO leveret_outbox ("id", "job_id", "actor", "queue", "body", "options", "due_at", "hold_until", "properties", "routing_key", "created_at", "error") OVERRIDING SYSTEM VALUE VALUES ('2', '019c13ec-9e00-7000-8000-000000000009', 'note.keep', NULL, E'\\x7b2274657874223a22c3bc6ec3afc2a96f646520e29c93222c226e223a317d', NULL, NULL, '-infinity', E'\\xb0e0106170706c69636174696f6e2f6a736f6e000000130d782d6c6576657265742d72756e4900000001022430313963313365632d396530302d373030302d383030302d30303030303030303030303900000000697deec0096e6f74652e6b656570', 'default.note.keep', '2026-01-31 12:00:00+00', NULL);
SELECT setval(pg_get_serial_sequence('leveret_outbox', 'id'), (SELECT max(id) FROM leveret_outbox));
INSERT INTO rollup_marks ("id", "bucket") OVERRIDING SYSTEM VALUE VALUES ('1', '2026-01-31 12:00:00+00');
SELECT setval(pg_get_serial_sequence('rollup_marks', 'id'), (SELECT max(id) FROM rollup_marks));
INSERT INTO schedule_slots ("schedule", "slot", "until", "count", "outcome", "job_id", "cause", "asked_by", "reason", "epoch", "due_at", "fired_at") VALUES ('nightly', '2026-01-31 03:00:00+00', NULL, '1', 'fired', '019c13ec-9e00-7000-8000-00000000000b', 'schedule', NULL, NULL, '3', '2026-01-31 03:00:00+00', '2026-01-31 03:00:00+00');
INSERT INTO schedules ("name", "origin", "description", "actor", "queue", "body", "options", "trigger", "expression", "timezone", "anchor_at", "jitter_seconds", "start_at", "end_at", "missed", "missed_window_seconds", "overlap", "dst_skipped", "dst_doubled", "paused_at", "paused_by", "since", "last_slot", "next_due_at", "version", "created_at", "created_by", "updated_at", "updated_by") VALUES ('nightly', 'api', NULL, 'note.keep', NULL, E'\\x7b2274657874223a22736c6f74222c226e223a307d', NULL, 'cron', '0 3 * * *', 'UTC', NULL, '0', NULL, NULL, 'once', NULL, 'allow', 'next', 'first', NULL, NULL, '2026-01-30 12:00:00+00', '2026-01-31 03:00:00+00', '2026-02-01 03:00:00+00', '1', '2026-01-31 12:00:00+00', 'cli:tess@test', '2026-01-31 12:00:00+00', NULL);
INSERT INTO unique_jobs ("actor", "key", "version", "job_id", "published_at", "started_at", "done_at", "held_until", "latest_id", "latest_at", "until") VALUES ('note.keep', 'report-0', '2', '019c13ec-9e00-7000-8000-000000000001', '2026-01-31 12:00:00+00', NULL, '2026-01-31 12:00:00+00', NULL, NULL, NULL, '2026-03-02 12:00:00+00');
INSERT INTO watches ("job_id", "watcher", "until") VALUES ('019c13ec-9e00-7000-8000-000000000003', 'api:frozen', '2026-01-31 12:01:00+00');
INSERT INTO workers ("id", "queues", "threads", "running", "first_seen_at", "seen_at", "beat_at", "gone_at") VALUES ('worker@frozen:1', '{default,bulk}', '8', '{019c13ec-9e00-7000-8000-000000000003}', '2026-01-31 12:00:00+00', '2026-01-31 12:00:00+00', '2026-01-31 12:00:05+00', NULL);
