//! Migrations, and what a program says to a schema that is not its own.

use store::StoreError;

use crate::world::{World, connect};

crate::in_both_databases!(
    an_empty_database_is_too_old_and_names_the_command,
    processes_that_migrate_at_once_all_succeed,
    a_newer_schema_is_refused,
    migrating_twice_keeps_what_is_there,
);

/// A database that nothing has migrated, beside the one of `world`.
fn empty(world: &World) -> String {
    if world.is_postgres() {
        testkit::postgres::Postgres::shared().database()
    } else {
        format!("{}-empty", world.url)
    }
}

async fn an_empty_database_is_too_old_and_names_the_command(world: World) {
    let store = connect(&empty(&world)).await;
    let error = store.schema_check().await.unwrap_err();
    assert!(
        matches!(error, StoreError::SchemaTooOld { found: 0, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("okmon migrate"), "{error}");
    world.store.schema_check().await.unwrap();
}

async fn processes_that_migrate_at_once_all_succeed(world: World) {
    let url = empty(&world);
    let mut processes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = url.clone();
        processes.spawn(async move { connect(&url).await.migrate().await });
    }
    while let Some(migrated) = processes.join_next().await {
        migrated.unwrap().unwrap();
    }
    connect(&url).await.schema_check().await.unwrap();
}

async fn a_newer_schema_is_refused(world: World) {
    world
        .sql("update _sqlx_migrations set version = 9999 where version = 1")
        .await
        .unwrap();
    for refused in [
        world.store.schema_check().await,
        world.store.migrate().await,
    ] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, StoreError::SchemaTooNew { found: 9999, .. }),
            "{error:?}"
        );
    }
}

async fn migrating_twice_keeps_what_is_there(world: World) {
    let (_, _, secret) = world.tenant("acme").await;
    world.store.migrate().await.unwrap();
    assert!(
        world
            .store
            .grant_fetch(&secret.digest())
            .await
            .unwrap()
            .is_some()
    );
}
