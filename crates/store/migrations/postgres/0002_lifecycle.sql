-- Which database this is. One that answers in its place but has another id holds other keys: a failover to an empty
-- server, or a wrong URL.
create table installation (
    id text not null,
    only_one boolean primary key default true check (only_one)
);
insert into installation (id) values (gen_random_uuid()::text);

-- The tenant's own limit where it has one; null leaves it to the edge. 0 refuses all but empty bodies.
alter table tenants add column body_max_bytes bigint check (body_max_bytes >= 0);

-- The key that `okmon key rotate` made in this one's place.
alter table api_keys add column replaced_by text collate "C";

-- Places in `changes` are not given in the order of commits: a transaction may commit place 5 after another has
-- committed place 6. A reader therefore keeps the snapshot it read with, and next time asks for what that one did not see.
alter table changes add column xid xid8 not null default pg_current_xact_id();
create index changes_by_xid on changes (xid);
create index changes_by_time on changes (at);

drop trigger tenants_updated on tenants;
create trigger tenants_updated after update on tenants for each row
    when ((old.id, old.status, old.suspended_at, old.body_max_bytes)
        is distinct from (new.id, new.status, new.suspended_at, new.body_max_bytes))
    execute function tenants_changed();

-- Who uses a key: the user agents and addresses seen with it, as far as the edges' bounds let them through.
create table key_uses (
    key_id text collate "C" not null,
    kind text not null check (kind in ('user_agent', 'address')),
    value text not null,
    requests bigint not null,
    first_at moment not null,
    last_at moment not null,
    primary key (key_id, kind, value)
);
create index key_uses_by_time on key_uses (last_at);

-- What was accepted and refused. `hour` is its beginning.
create table usage_hourly (
    tenant_id text collate "C" not null,
    key_id text collate "C" not null,
    signal text not null,
    outcome text not null,
    hour moment not null,
    requests bigint not null,
    bytes bigint not null,
    items bigint not null,
    primary key (tenant_id, hour, key_id, signal, outcome)
);

create index audit_by_tenant on audit (tenant_id, seq);
