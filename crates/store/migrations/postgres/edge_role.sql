-- What an edge may do: read keys and tenants, follow their changes, and write down what it saw. Run after every migration,
-- so that a role made later, by somebody who may make roles, gets its rights by `okmon migrate`.
do $$
begin
    if not exists (select from pg_roles where rolname = 'okmon_edge') then
        create role okmon_edge nologin;
    end if;
exception
    -- Somebody else may have made it in this moment: roles belong to all databases of a server.
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise warning 'the role okmon_edge does not exist and may not be made by %: make it and migrate again', current_user;
end $$;

do $$
begin
    if exists (select from pg_roles where rolname = 'okmon_edge') then
        execute format('grant usage on schema %I to okmon_edge', current_schema());
        grant select on tenants, api_keys, changes, installation, _sqlx_migrations to okmon_edge;
        grant update (last_used_at) on api_keys to okmon_edge;
        grant select, insert, update on key_uses, usage_hourly to okmon_edge;
    end if;
end $$;
