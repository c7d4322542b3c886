-- Ids are text, moments are milliseconds since 1970 in UTC, personal data exists only as sealed BLOBs.
-- Every row of a tenant is keyed by (tenant_id, …), and every reference carries the tenant with it.

CREATE TABLE tenants (
    tenant_id   TEXT    NOT NULL PRIMARY KEY,
    slug        TEXT    NOT NULL UNIQUE,
    name_sealed BLOB,
    tier        TEXT    NOT NULL,
    status      TEXT    NOT NULL CHECK (status IN ('active', 'suspended')),
    epoch       INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    tenant_id     TEXT    NOT NULL REFERENCES tenants (tenant_id),
    id            TEXT    NOT NULL,
    email_sealed  BLOB    NOT NULL,
    name_sealed   BLOB    NOT NULL,
    role          TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('active', 'disabled')),
    password_hash TEXT    NOT NULL,
    epoch         INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    last_login_at INTEGER,
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

-- Equality look-up and uniqueness of sealed columns: keyed digests, one row per value and digest key.
CREATE TABLE blind_index (
    tenant_id TEXT    NOT NULL REFERENCES tenants (tenant_id),
    tbl       TEXT    NOT NULL,
    col       TEXT    NOT NULL,
    key_id    INTEGER NOT NULL,
    tag       BLOB    NOT NULL,
    row_id    TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, tbl, col, key_id, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX blind_index_row ON blind_index (tenant_id, tbl, row_id);

CREATE TABLE data_keys (
    tenant_id  TEXT    NOT NULL,
    id         INTEGER NOT NULL,
    purpose    TEXT    NOT NULL,
    kek        TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    wrapped    BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    tenant_id           TEXT    NOT NULL,
    id                  TEXT    NOT NULL,
    user_id             TEXT    NOT NULL,
    created_at          INTEGER NOT NULL,
    last_seen_at        INTEGER NOT NULL,
    idle_expires_at     INTEGER NOT NULL,
    absolute_expires_at INTEGER NOT NULL,
    ended_at            INTEGER,
    generation          INTEGER NOT NULL DEFAULT 0,
    device_hash         BLOB,
    client_sealed       BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (tenant_id, user_id);
CREATE INDEX sessions_end ON sessions (absolute_expires_at);

-- One row per generation, kept until the session's absolute end, so that a spent token is known when it comes back.
CREATE TABLE refresh_tokens (
    tenant_id        TEXT    NOT NULL,
    session_id       TEXT    NOT NULL,
    generation       INTEGER NOT NULL,
    hash             BLOB    NOT NULL UNIQUE,
    state            TEXT    NOT NULL CHECK (state IN ('live', 'spent')),
    spent_at         INTEGER,
    successor_sealed BLOB,
    spender_hash     BLOB,
    expires_at       INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, session_id, generation),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_successor ON refresh_tokens (spent_at) WHERE successor_sealed IS NOT NULL;

CREATE TABLE signing_keys (
    kid             TEXT    NOT NULL PRIMARY KEY,
    alg             TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'active', 'retired', 'compromised')),
    public_jwk      TEXT    NOT NULL,
    private_wrapped BLOB    NOT NULL,
    kek             TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    activated_at    INTEGER,
    retired_at      INTEGER
) STRICT, WITHOUT ROWID;

-- No reference to tenants or users: the trail outlives what it speaks of. seq is never used twice.
CREATE TABLE audit (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id     TEXT,
    tseq          INTEGER,
    id            TEXT    NOT NULL UNIQUE,
    at            INTEGER NOT NULL,
    actor_type    TEXT    NOT NULL,
    actor_id      TEXT,
    actor_session TEXT,
    action        TEXT    NOT NULL,
    outcome       TEXT    NOT NULL,
    targets       TEXT    NOT NULL,
    details       TEXT    NOT NULL,
    ip            TEXT,
    request       TEXT,
    node          TEXT    NOT NULL,
    UNIQUE (tenant_id, tseq)
) STRICT;
CREATE INDEX audit_action ON audit (tenant_id, action, tseq);
CREATE INDEX audit_actor ON audit (tenant_id, actor_id, tseq);

-- A seat belt against our own mistakes; against an intruder with the file, see the threat model.
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is not changed'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is not deleted'); END;

-- The last number given out in each tenant, so that its own numbering has no gaps.
CREATE TABLE audit_heads (
    tenant_id TEXT    NOT NULL PRIMARY KEY,
    tseq      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What an event does to live credentials, kept until the last token it can touch has expired.
CREATE TABLE effects (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    value    TEXT    NOT NULL,
    until    INTEGER NOT NULL
) STRICT;
CREATE INDEX effects_until ON effects (until);

CREATE TABLE idempotency (
    tenant_id       TEXT    NOT NULL,
    key_hash        BLOB    NOT NULL,
    user_id         TEXT,
    request_digest  BLOB    NOT NULL,
    status          INTEGER NOT NULL,
    response_sealed BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key_hash)
) STRICT;
CREATE INDEX idempotency_expires ON idempotency (expires_at);

CREATE TABLE blocks (
    id         TEXT    NOT NULL PRIMARY KEY,
    network    TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;

-- The theoretical arrival time (GCRA) of each key with recent failures; the key is a digest.
CREATE TABLE login_failures (
    key        BLOB    NOT NULL PRIMARY KEY,
    tat        INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
