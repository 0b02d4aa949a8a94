//! A key's secret leaves in the answer that made it, and nowhere else.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::World;
use crate::walk::walk;

/// Lines of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The 36 secret characters of a key or a token.
fn secret(credential: &str) -> &str {
    &credential.split_once('_').unwrap().1[12..48]
}

#[tokio::test]
async fn no_other_answer_and_no_line_of_the_log_has_a_secret_on_sqlite() {
    no_other_answer_and_no_line_of_the_log_has_a_secret(World::sqlite()).await;
}

#[tokio::test]
async fn no_other_answer_and_no_line_of_the_log_has_a_secret_on_postgres() {
    no_other_answer_and_no_line_of_the_log_has_a_secret(World::postgres()).await;
}

/// The world is made here, so that the log has that too.
async fn no_other_answer_and_no_line_of_the_log_has_a_secret(world: impl Future<Output = World>) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // The runtime of this test has one thread, on which the control plane runs too.
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = world.await;
    let exchanges = walk(&world).await;

    let mut secrets = vec![
        world.admin.reveal().to_owned(),
        world.reader.reveal().to_owned(),
    ];
    for exchange in &exchanges {
        let Ok(object) = serde_json::from_str::<Value>(&exchange.answer.text) else {
            continue;
        };
        let keys = [&object["key"], &object["key"]["key"]];
        secrets.extend(keys.iter().filter_map(|key| Some(key.as_str()?.to_owned())));
    }
    assert_eq!(
        secrets.len(),
        2 + 7,
        "two tenants, three keys, two rotations"
    );
    for credential in &secrets {
        let answers = exchanges.iter().map(|exchange| &exchange.answer.text);
        let having = answers.filter(|text| text.contains(secret(credential)));
        let once = usize::from(credential.starts_with("obs_"));
        assert_eq!(having.count(), once, "{}…", &credential[..17]);
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("key rotated"), "{log}");
    for credential in &secrets {
        assert!(!log.contains(secret(credential)), "{}…", &credential[..17]);
    }
}

#[tokio::test]
async fn a_key_in_the_wrong_place_is_neither_kept_nor_repeated() {
    let world = World::sqlite().await;
    let made = world.tenant("acme").await;
    let before = world.state().await;
    let keys = "/api/v1/tenants/acme/keys";
    for credential in [made["key"]["key"].as_str().unwrap(), world.reader.reveal()] {
        let tenant = |field: &str, value: String| {
            let mut tenant = crate::harness::new_tenant("new");
            tenant["allow_any_id"] = true.into();
            tenant[field] = value.into();
            world.post("/api/v1/tenants", tenant)
        };
        let mut answers = vec![
            tenant("id", credential.to_owned()).await,
            tenant("name", format!("Acme {credential}")).await,
            tenant("email", format!("{credential}@example.com")).await,
            tenant(credential, "x".to_owned()).await,
            world.post(keys, json!({"name": credential})).await,
            world.post(keys, json!({"scopes": [credential]})).await,
            world.post(keys, json!({"expires_at": credential})).await,
            world.post(keys, json!({"key_id": credential})).await,
            world.post(keys, json!({"sha256": credential})).await,
            world
                .patch("/api/v1/tenants/acme", json!({"name": credential}))
                .await,
        ];
        for path in [
            format!("/{credential}"),
            format!("/api/v1/tenants/{credential}"),
            format!("/api/v1/tenants/{credential}/keys"),
            format!("/api/v1/tenants?after={credential}|"),
            format!("/api/v1/keys/{credential}"),
            format!("/api/v1/audit?key_id={credential}"),
            format!("/api/v1/audit?{credential}=1"),
            format!("/api/v1/audit?tenant={credential}|"),
        ] {
            answers.push(world.get(&path.replace('|', "%7C")).await);
        }
        for answer in answers {
            assert!(answer.status.is_client_error(), "{}", answer.text);
            assert!(!answer.text.contains(secret(credential)), "{}", answer.text);
        }
    }
    assert_eq!(world.state().await, before);
}
