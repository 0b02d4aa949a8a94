-- Which database this is. One that answers in its place but has another id holds other keys: another file, or a wrong URL.
create table installation (
    id text not null,
    only_one integer primary key default 1 check (only_one = 1)
);
insert into installation (id) values (lower(hex(randomblob(16))));

-- The tenant's own limit where it has one; null leaves it to the edge. 0 refuses all but empty bodies.
alter table tenants add column body_max_bytes integer
    check (body_max_bytes is null or (typeof(body_max_bytes) = 'integer' and body_max_bytes >= 0));

-- The key that `okmon key rotate` made in this one's place.
alter table api_keys add column replaced_by text;

create index changes_by_time on changes (at);

drop trigger tenants_updated;
create trigger tenants_updated after update on tenants
when (old.id, old.status, old.suspended_at, old.body_max_bytes)
    is not (new.id, new.status, new.suspended_at, new.body_max_bytes) begin
    insert into changes (kind, tenant_id) values ('tenant', old.id);
    insert into changes (kind, tenant_id) select 'tenant', new.id where new.id <> old.id;
end;

-- Who uses a key: the user agents and addresses seen with it, as far as the edges' bounds let them through.
create table key_uses (
    key_id text not null,
    kind text not null check (kind in ('user_agent', 'address')),
    value text not null,
    requests integer not null,
    first_at text not null,
    last_at text not null,
    primary key (key_id, kind, value)
);
create index key_uses_by_time on key_uses (last_at);

-- What was accepted and refused. `hour` is its beginning.
create table usage_hourly (
    tenant_id text not null,
    key_id text not null,
    signal text not null,
    outcome text not null,
    hour text not null,
    requests integer not null,
    bytes integer not null,
    items integer not null,
    primary key (tenant_id, hour, key_id, signal, outcome)
);

create index audit_by_tenant on audit (tenant_id, seq);
