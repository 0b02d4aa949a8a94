//! `okmon dev`: everything in one process on an embedded default, so that telemetry can be sent and seen within seconds.
//! Constructs the planes as their own commands would, and stands the sink in for the backends.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use control::OperatorToken;
use model::{ApiKey, ScopeSet, TenantId, Verdict};
use ops::inherited::Inherited;
use ops::log::{Format, LogSettings};
use serde::Serialize;
use store::{Actor, DatabaseUrl, NewKey, NewTenant, OperatorScopes, Store};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::sink::Sink;
use crate::snippets::{Sender, indented};

/// The tenant that is there from the start.
const TENANT: &str = "demo";
/// The file with the operator's token, which the CLI finds in `.okmon/`.
const TOKEN_FILE: &str = "operator-token";
/// The file with the demo tenant's key: the database has its digest only, and a second start shall print the same.
const KEY_FILE: &str = "demo-key";

/// Flags of `okmon dev`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  okmon dev\n  okmon dev --ephemeral --json --port-offset 10000"
)]
pub struct DevArgs {
    /// Print one line of JSON once all ports answer, and nothing else
    #[arg(long)]
    json: bool,
    /// Where the database, the demo key and the operator's token are kept
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".okmon",
        conflicts_with = "ephemeral"
    )]
    data_dir: PathBuf,
    /// Keep nothing: a temporary directory takes the data directory's place
    #[arg(long)]
    ephemeral: bool,
    /// A database in place of the SQLite file in the data directory
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// A number added to every port that is not 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
    /// Where to listen
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST)]
    bind: Ipv4Addr,
    /// Port for OTLP/gRPC; 0 takes a free one, here and below
    #[arg(long, value_name = "PORT", default_value_t = 4317)]
    otlp_grpc_port: u16,
    /// Port for OTLP/HTTP
    #[arg(long, value_name = "PORT", default_value_t = 4318)]
    otlp_http_port: u16,
    /// Port for every HTTP route
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    api_port: u16,
    /// Port for the edge's metrics and probes
    #[arg(long, value_name = "PORT", default_value_t = 9600)]
    ops_port: u16,
    /// Port for the admin API
    #[arg(long, value_name = "PORT", default_value_t = 9601)]
    control_port: u16,
    /// Port for the sink and its page
    #[arg(long, value_name = "PORT", default_value_t = 9602)]
    sink_port: u16,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Ready {
    tenant: String,
    key: String,
    otlp_grpc: String,
    otlp_http: String,
    api: String,
    ops: String,
    control: String,
    sink: String,
    operator_token: String,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &DevArgs) -> anyhow::Result<()> {
    let level = if args.json { "warn" } else { "info,sqlx=warn" };
    let _logging = ops::log::init(&LogSettings {
        level: level.to_owned(),
        format: Format::Auto,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: &DevArgs) -> anyhow::Result<()> {
    let stop = ops::signal::stop_token()?;
    let kept = Kept::open(args)?;
    let store = Store::connect(&kept.database, 4)
        .await
        .context("cannot open the database")?;
    store
        .migrate()
        .await
        .context("cannot migrate the database")?;
    let key = demo_key(&store, kept.directory()).await?;
    let operator_token = operator_token(&store, kept.directory()).await?;

    let sink_listener = args.listen("sink", args.sink_port).await?;
    let sink_address = sink_listener.local_addr()?;
    let sink_stop = CancellationToken::new();
    let sink = tokio::spawn(Sink::default().serve(sink_listener, sink_stop.clone()));
    let control = control::start(args.listen("control", args.control_port).await?, store).await?;
    let text = edge_config(args, &kept.database_url, sink_address);
    let mut edge = edge::start(
        edge::Config::parse("okmon dev", &text)?,
        Inherited::default(),
    )
    .await?;
    edge.ready().await;

    let ready = Ready {
        tenant: TENANT.to_owned(),
        key: key.reveal().to_owned(),
        otlp_grpc: url(edge.listener("otlp_grpc")?),
        otlp_http: url(edge.listener("otlp_http")?),
        api: url(edge.listener("api")?),
        ops: url(edge.ops_address),
        control: url(control.addr),
        sink: url(sink_address),
        operator_token: operator_token.reveal().to_owned(),
    };
    show(args, &ready)?;
    let failed = tokio::select! {
        () = stop.cancelled() => false,
        () = edge.failed() => true,
    };
    edge.stop().await;
    control.stop().await?;
    sink_stop.cancel();
    sink.await??;
    anyhow::ensure!(!failed, "a part of the edge ended by itself; see the log");
    Ok(())
}

impl DevArgs {
    fn address(&self, port: u16) -> SocketAddr {
        let port = if port == 0 {
            0
        } else {
            port.saturating_add(self.port_offset)
        };
        SocketAddr::from((self.bind, port))
    }

    async fn listen(&self, what: &str, port: u16) -> anyhow::Result<TcpListener> {
        let address = self.address(port);
        TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address} ({what}): is another okmon dev running? --port-offset N moves every port")
        })
    }
}

/// Where a run keeps its things.
struct Kept {
    directory: PathBuf,
    database_url: String,
    database: DatabaseUrl,
    /// Removes the directory of an ephemeral run when it ends.
    _temporary: Option<tempfile::TempDir>,
}

impl Kept {
    fn open(args: &DevArgs) -> anyhow::Result<Self> {
        let temporary = args
            .ephemeral
            .then(|| tempfile::Builder::new().prefix("okmon-dev-").tempdir())
            .transpose()?;
        let directory = temporary
            .as_ref()
            .map_or(args.data_dir.as_path(), tempfile::TempDir::path)
            .to_owned();
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory);
        made.with_context(|| format!("cannot make the data directory {}", directory.display()))?;
        let database_url = args
            .database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", directory.join("okmon.db").display()));
        Ok(Self {
            database: database_url.parse().context("--database-url")?,
            directory,
            database_url,
            _temporary: temporary,
        })
    }

    fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The demo tenant's key: the one of the last run if it still works, else a new one.
async fn demo_key(store: &Store, directory: &Path) -> anyhow::Result<ApiKey> {
    let file = directory.join(KEY_FILE);
    let now = OffsetDateTime::now_utc();
    if let Some(key) = read_secret(&file)?.and_then(|text| text.parse::<ApiKey>().ok())
        && let Some(grant) = store.grant_fetch(&key.digest()).await?
        && grant.verdict(now, std::time::Duration::ZERO) == Verdict::Valid
    {
        return Ok(key);
    }
    let key = ApiKey::generate()?;
    let new = NewKey {
        key_id: key.id(),
        digest: key.digest(),
        name: "dev".to_owned(),
        scopes: ScopeSet::WRITE,
        expires_at: None,
    };
    let tenant = TenantId::parse(TENANT)?;
    let actor = Actor::command("dev");
    if store.tenant_fetch(&tenant).await?.is_some() {
        store.key_insert(&tenant, new, now, &actor).await?;
    } else {
        let demo = NewTenant {
            id: tenant,
            name: "Demo".to_owned(),
            email: "demo@example.com".to_owned(),
        };
        store.tenant_insert(demo, new, now, &actor).await?;
    }
    write_secret(&file, key.reveal())?;
    Ok(key)
}

/// The operator's token: the one of the last run if the database knows it, else a new one.
async fn operator_token(store: &Store, directory: &Path) -> anyhow::Result<OperatorToken> {
    let file = directory.join(TOKEN_FILE);
    if let Some(token) = read_secret(&file)?.and_then(|text| text.parse::<OperatorToken>().ok())
        && let Some(operator) = store.operator_fetch(&token.digest()).await?
        && operator.revoked_at.is_none()
        && operator
            .expires_at
            .is_none_or(|at| at > OffsetDateTime::now_utc())
    {
        return Ok(token);
    }
    let actor = Actor::command("dev");
    let (_, token) = control::operator_create(store, "dev", OperatorScopes::ADMIN, &actor).await?;
    write_secret(&file, token.reveal())?;
    Ok(token)
}

fn read_secret(file: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes a secret that only the user can read, whole or not at all.
fn write_secret(file: &Path, secret: &str) -> anyhow::Result<()> {
    let part = file.with_extension("part");
    let write = || {
        let mut open = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        writeln!(open, "{secret}")?;
        fs::rename(&part, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

/// The edge's configuration with the sink as every upstream.
fn edge_config(args: &DevArgs, database_url: &str, sink: SocketAddr) -> String {
    let listener =
        |name: &str, port| format!("[listeners.{name}]\naddress = \"{}\"\n", args.address(port));
    let upstream = |name: &str, kind: &str, speaks: &str| {
        format!(
            "[upstreams.{name}]\nurl = \"http://{sink}\"\nkind = \"{kind}\"\nspeaks = \"{speaks}\"\n"
        )
    };
    [
        listener("otlp_grpc", args.otlp_grpc_port),
        listener("otlp_http", args.otlp_http_port),
        listener("api", args.api_port),
        format!("[ops]\naddress = \"{}\"\n", args.address(args.ops_port)),
        format!("[database]\nurl = {database_url:?}\n"),
        // The database is there when this process is.
        "[keys]\nsnapshot_file = \"\"\n".to_owned(),
        // Who tries things out does so from one address, and shall not be turned away.
        "[strangers]\naddresses_max = 0\n".to_owned(),
        "[runtime]\ndrain_max = \"5s\"\n".to_owned(),
        upstream("grpc", "collector", "grpc"),
        upstream("collector", "collector", "http1"),
        upstream("mimir", "mimir", "http1"),
        upstream("loki", "loki", "http1"),
        "[routes.otlp_grpc]\ntraces = \"grpc\"\nmetrics = \"grpc\"\nlogs = \"grpc\"\nprofiles = \"grpc\"\n".to_owned(),
        "[routes.otlp_http]\ntraces = \"collector\"\nmetrics = \"mimir\"\nlogs = \"loki\"\nprofiles = \"collector\"\n"
            .to_owned(),
        "[routes.remote_write]\nmetrics = \"mimir\"\n[routes.loki_push]\nlogs = \"loki\"\n".to_owned(),
    ]
    .concat()
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn show(args: &DevArgs, ready: &Ready) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(ready)?);
    } else {
        print!("{}", welcome(ready));
    }
    std::io::stdout().flush()?;
    Ok(())
}

/// What a person sees: where to look, and settings to paste.
fn welcome(ready: &Ready) -> String {
    let Ready {
        tenant,
        key,
        otlp_grpc,
        otlp_http,
        api,
        ops,
        control,
        sink,
        ..
    } = ready;
    let sender = Sender {
        otlp: otlp_http,
        api,
        key,
    };
    let [sdk, prometheus, alloy, curl] = [
        sender.otlp_sdk(),
        sender.prometheus(),
        sender.alloy(),
        sender.curl(),
    ]
    .map(|settings| indented(&settings));
    format!(
        "
ok-monitoring is up. Watch what arrives:  {sink}/

  tenant  {tenant}
  key     {key}

OpenTelemetry SDK (gRPC: {otlp_grpc}, protocol grpc):
{sdk}
Prometheus (prometheus.yml):
{prometheus}
Alloy (config.alloy), and Promtail alike:
{alloy}
curl:
{curl}
Metrics {ops}/metrics, admin API {control} (the token is in the data directory). Stop with Ctrl-C.
"
    )
}
