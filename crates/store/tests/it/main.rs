//! The promises of the store, each kept by both databases. PostgreSQL is a real one, started by `testkit`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod changes;
mod grants;
mod key_import;
mod operators_and_audit;
mod rotation;
mod schema;
mod tenant_changes;
mod tenants_and_keys;
mod uses;
mod world;

/// Makes of each promise one test per database.
macro_rules! in_both_databases {
    ($($promise:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(crate::world::World::postgres().await).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(crate::world::World::sqlite().await).await;
            })+
        }
    };
}
use in_both_databases;
