//! One request after another on one connection, through the edge's socket to an upstream that answers at once: what the
//! path costs with nothing waiting in line.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up should stop"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::{ApiKey, ScopeSet, TenantId};
use store::{Actor, NewKey, NewTenant, Store};
use time::OffsetDateTime;

fn requests(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let database = format!("sqlite://{}", directory.path().join("keys.db").display());
    let upstream = answer_at_once();
    let key = ApiKey::generate().expect("randomness");
    let edge = runtime.block_on(async {
        seed(&database, &key).await;
        let config = edge::Config::parse("bench", &config(&database, upstream))
            .expect("a good configuration");
        let edge = edge::start(config, ops::inherited::Inherited::default())
            .await
            .expect("a start");
        edge.ready().await;
        edge
    });
    let address = edge.listener("api").expect("the listener");
    let mut group = c.benchmark_group("request path");
    for size in [1 << 10, 32 << 10, 1 << 20] {
        let mut connection = TcpStream::connect(address).expect("a connection");
        let request = request(&key, size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{} KiB", size >> 10), |b| {
            b.iter(|| exchange(&mut connection, &request));
        });
    }
    group.finish();
    runtime.block_on(edge.stop());
}

async fn seed(database: &str, key: &ApiKey) {
    let store = Store::connect(&database.parse().expect("a URL"), 1)
        .await
        .expect("a database");
    store.migrate().await.expect("a schema");
    let tenant = NewTenant {
        id: TenantId::parse("bench").expect("a tenant id"),
        name: "bench".to_owned(),
        email: "bench@example.com".to_owned(),
    };
    let key = NewKey {
        key_id: key.id(),
        digest: key.digest(),
        name: String::new(),
        scopes: ScopeSet::WRITE,
        expires_at: None,
    };
    let actor = Actor::command("bench");
    let inserted = store.tenant_insert(tenant, key, OffsetDateTime::now_utc(), &actor);
    inserted.await.expect("a tenant");
}

fn config(database: &str, upstream: SocketAddr) -> String {
    format!(
        "[listeners.api]\naddress = \"127.0.0.1:0\"\n[ops]\naddress = \"127.0.0.1:0\"\n[database]\nurl = \"{database}\"\n\
         [keys]\nsnapshot_file = \"\"\n\
         [runtime]\nworkers = 1\n[upstreams.null]\nurl = \"http://{upstream}\"\n[routes.otlp_http]\ntraces = \"null\"\n"
    )
}

fn request(key: &ApiKey, size: usize) -> Vec<u8> {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {size}\r\n\r\n",
        key.reveal()
    );
    [head.as_bytes(), &vec![b'x'; size]].concat()
}

fn exchange(connection: &mut TcpStream, request: &[u8]) {
    connection.write_all(request).expect("to send");
    let mut answer = [0; 1024];
    let n = connection.read(&mut answer).expect("an answer");
    assert!(
        answer[..n].starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&answer[..n])
    );
}

/// An upstream on a thread per connection that reads a body and answers 200.
fn answer_at_once() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || serve(connection));
        }
    });
    address
}

fn serve(mut connection: TcpStream) {
    let mut buffer = vec![0; 1 << 18];
    let mut filled = 0;
    loop {
        let Some(head) = buffer[..filled]
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
        else {
            match connection.read(&mut buffer[filled..]) {
                Ok(n @ 1..) => filled += n,
                Ok(0) | Err(_) => return,
            }
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        let mut left = (head + 4 + length.expect("a length")) - filled;
        while left > 0 {
            let room = buffer.len().min(left);
            match connection.read(&mut buffer[..room]) {
                Ok(n @ 1..) => left -= n,
                Ok(0) | Err(_) => return,
            }
        }
        filled = 0;
        if connection
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .is_err()
        {
            return;
        }
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
