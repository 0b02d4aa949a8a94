-- A moment the programs can represent: 'infinity' and years beyond 9999 are refused here, where the writer sees it.
create domain moment as timestamptz check (value >= '0001-01-01 00:00+00' and value < '9999-12-31 00:00+00');

-- A tenant's row is never deleted while data of it may be stored: its id must not be given to another.
create table tenants (
    id text collate "C" primary key check (id ~ '^[A-Za-z0-9!_.*''()-]{1,150}$'),
    name text not null,
    email text not null,
    status text not null default 'active' check (status in ('active', 'suspended', 'inactive')),
    suspended_at moment,
    created_at moment not null default now(),
    updated_at moment not null default now()
);

-- `digest` is SHA-256 of the whole key; the key itself is nowhere. Any `revoked_at`, or deleting the row, revokes.
create table api_keys (
    key_id text collate "C" primary key check (key_id ~ '^[0-9A-Za-z]{12}$'),
    tenant_id text collate "C" not null references tenants (id),
    digest bytea not null unique check (octet_length(digest) = 32),
    name text not null default '',
    scopes text not null default 'metrics:write,logs:write,traces:write,profiles:write',
    created_at moment not null default now(),
    expires_at moment,
    revoked_at moment,
    last_used_at moment
);
create index api_keys_by_tenant on api_keys (tenant_id, created_at, key_id);

-- Who may use the admin API. `digest` is SHA-256 of the token.
create table operators (
    id text collate "C" primary key,
    name text not null,
    digest bytea not null unique check (octet_length(digest) = 32),
    scopes text not null default 'read',
    created_at moment not null default now(),
    expires_at moment,
    revoked_at moment
);

create table audit (
    seq bigint generated always as identity primary key,
    at moment not null default now(),
    actor text not null,
    action text not null,
    tenant_id text,
    key_id text,
    detail text not null default ''
);

-- What changed for the holders of cached keys. Kind 'tenant': every key of `tenant_id`; 'key': the one with `digest`;
-- 'all': everything. Written by triggers alone, so that SQL typed by hand is followed too.
create table changes (
    seq bigint generated always as identity primary key,
    at moment not null default now(),
    kind text not null check (kind in ('tenant', 'key', 'all')),
    tenant_id text,
    key_id text,
    digest bytea
);

create function tenants_changed() returns trigger language plpgsql as $$
begin
    if tg_op in ('UPDATE', 'DELETE') then
        insert into changes (kind, tenant_id) values ('tenant', old.id);
    end if;
    if tg_op = 'INSERT' or (tg_op = 'UPDATE' and new.id <> old.id) then
        insert into changes (kind, tenant_id) values ('tenant', new.id);
    end if;
    -- Without a payload, the notifications of one transaction are merged into one.
    perform pg_notify('okmon_changes', '');
    return null;
end $$;

create function api_keys_changed() returns trigger language plpgsql as $$
begin
    if tg_op in ('UPDATE', 'DELETE') then
        insert into changes (kind, tenant_id, key_id, digest) values ('key', old.tenant_id, old.key_id, old.digest);
    end if;
    if tg_op = 'INSERT' or (tg_op = 'UPDATE' and new.digest <> old.digest) then
        insert into changes (kind, tenant_id, key_id, digest) values ('key', new.tenant_id, new.key_id, new.digest);
    end if;
    perform pg_notify('okmon_changes', '');
    return null;
end $$;

create function all_changed() returns trigger language plpgsql as $$
begin
    insert into changes (kind) values ('all');
    perform pg_notify('okmon_changes', '');
    return null;
end $$;

create trigger tenants_written after insert or delete on tenants for each row execute function tenants_changed();
create trigger tenants_updated after update on tenants for each row
    when ((old.id, old.status, old.suspended_at) is distinct from (new.id, new.status, new.suspended_at))
    execute function tenants_changed();
create trigger tenants_truncated after truncate on tenants execute function all_changed();

-- `name` and `last_used_at` change nothing that a cache holds, and the latter is written often.
create trigger api_keys_written after insert or delete on api_keys for each row execute function api_keys_changed();
create trigger api_keys_updated after update on api_keys for each row
    when ((old.key_id, old.tenant_id, old.digest, old.scopes, old.expires_at, old.revoked_at)
        is distinct from (new.key_id, new.tenant_id, new.digest, new.scopes, new.expires_at, new.revoked_at))
    execute function api_keys_changed();
create trigger api_keys_truncated after truncate on api_keys execute function all_changed();
