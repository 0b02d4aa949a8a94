//! The promises of the admin API, through its socket, over a real PostgreSQL and a real SQLite database.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod access;
mod audit;
mod bad_input;
mod bad_values;
mod harness;
mod keys;
mod openapi;
mod paging;
mod problems;
mod rotation;
mod secrets;
mod tenants;
mod walk;

/// Makes of each promise one test per database.
macro_rules! in_both_databases {
    ($($promise:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(crate::harness::World::postgres().await).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(crate::harness::World::sqlite().await).await;
            })+
        }
    };
}
use in_both_databases;
