-- Times are text in UTC, `YYYY-MM-DD HH:MM:SS` with or without a fraction, as datetime('now') writes them.

-- A tenant's row is never deleted while data of it may be stored: its id must not be given to another.
create table tenants (
    id text primary key not null
        check (length(id) between 1 and 150 and id not glob '*[^-A-Za-z0-9!_.*''()]*'),
    name text not null,
    email text not null,
    status text not null default 'active' check (status in ('active', 'suspended', 'inactive')),
    suspended_at text,
    created_at text not null default (datetime('now')),
    updated_at text not null default (datetime('now'))
);

-- `digest` is SHA-256 of the whole key; the key itself is nowhere. Any `revoked_at`, or deleting the row, revokes.
create table api_keys (
    key_id text primary key not null check (length(key_id) = 12 and key_id not glob '*[^0-9A-Za-z]*'),
    tenant_id text not null references tenants (id),
    digest blob not null unique check (typeof(digest) = 'blob' and length(digest) = 32),
    name text not null default '',
    scopes text not null default 'metrics:write,logs:write,traces:write,profiles:write',
    created_at text not null default (datetime('now')),
    expires_at text,
    revoked_at text,
    last_used_at text
);
create index api_keys_by_tenant on api_keys (tenant_id, created_at, key_id);

-- Who may use the admin API. `digest` is SHA-256 of the token.
create table operators (
    id text primary key not null,
    name text not null,
    digest blob not null unique check (typeof(digest) = 'blob' and length(digest) = 32),
    scopes text not null default 'read',
    created_at text not null default (datetime('now')),
    expires_at text,
    revoked_at text
);

create table audit (
    seq integer primary key autoincrement,
    at text not null default (datetime('now')),
    actor text not null,
    action text not null,
    tenant_id text,
    key_id text,
    detail text not null default ''
);

-- What changed for the holders of cached keys. Kind 'tenant': every key of `tenant_id`; 'key': the one with `digest`;
-- 'all': everything. Written by triggers alone, so that SQL typed by hand is followed too.
create table changes (
    seq integer primary key autoincrement,
    at text not null default (datetime('now')),
    kind text not null check (kind in ('tenant', 'key', 'all')),
    tenant_id text,
    key_id text,
    digest blob
);

create trigger tenants_inserted after insert on tenants begin
    insert into changes (kind, tenant_id) values ('tenant', new.id);
end;
create trigger tenants_deleted after delete on tenants begin
    insert into changes (kind, tenant_id) values ('tenant', old.id);
end;
create trigger tenants_updated after update on tenants
when (old.id, old.status, old.suspended_at) is not (new.id, new.status, new.suspended_at) begin
    insert into changes (kind, tenant_id) values ('tenant', old.id);
    insert into changes (kind, tenant_id) select 'tenant', new.id where new.id <> old.id;
end;

-- `insert or replace` deletes the row it replaces without a delete trigger.
create trigger api_keys_replaced before insert on api_keys begin
    insert into changes (kind, tenant_id, key_id, digest)
        select 'key', tenant_id, key_id, digest from api_keys where key_id = new.key_id or digest = new.digest;
end;
create trigger api_keys_inserted after insert on api_keys begin
    insert into changes (kind, tenant_id, key_id, digest) values ('key', new.tenant_id, new.key_id, new.digest);
end;
create trigger api_keys_deleted after delete on api_keys begin
    insert into changes (kind, tenant_id, key_id, digest) values ('key', old.tenant_id, old.key_id, old.digest);
end;
-- `name` and `last_used_at` change nothing that a cache holds, and the latter is written often.
create trigger api_keys_updated after update on api_keys
when (old.key_id, old.tenant_id, old.digest, old.scopes, old.expires_at, old.revoked_at)
    is not (new.key_id, new.tenant_id, new.digest, new.scopes, new.expires_at, new.revoked_at) begin
    insert into changes (kind, tenant_id, key_id, digest) values ('key', old.tenant_id, old.key_id, old.digest);
    insert into changes (kind, tenant_id, key_id, digest)
        select 'key', new.tenant_id, new.key_id, new.digest where new.digest <> old.digest;
end;
