//! `okmon edge` and `okmon check`: the data plane as a process, and its configuration looked at without one.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use edge::Config;
use ops::config_file::ConfigFile;
use ops::inherited::Inherited;
use ops::log::Logging;
use ops::notify;
use ops::signal::{Signal, Signals};
use tracing::error;

/// What `systemctl status` shows.
const SERVING: &str = "serving";
const REFUSED: &str = "serving by an older configuration: the file's is refused, the log says why";

/// How long a file with a mistake is given to become one without.
const HALF_WRITTEN: Duration = Duration::from_millis(300);

/// Flags of `okmon edge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon edge --config config/edge/edge.toml")]
pub struct EdgeArgs {
    /// The configuration file; config/edge/edge.toml explains every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Flags of `okmon check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon check --config config/edge/edge.toml --connect")]
pub struct CheckArgs {
    /// The configuration file to check
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also try the database and every upstream
    #[arg(long)]
    connect: bool,
}

fn read(file: &PathBuf) -> anyhow::Result<Config> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    Ok(Config::parse(&name, &text)?)
}

/// How much less of a busy core the background gets: a third of what a worker gets. Who floods us with connections to accept shall not
/// take the time of requests that are under way.
const BACKGROUND_NICE: i32 = 5;

/// A runtime for everything but requests: accepting, keys, the ops port.
fn background() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .on_thread_start(|| {
            let thread = rustix::thread::gettid();
            // Without it everything works as well, until a core is busy.
            let _ = rustix::process::setpriority_process(Some(thread), BACKGROUND_NICE);
        })
        .build()
        .context("cannot start the runtime")
}

/// Runs the edge until SIGTERM or SIGINT. SIGHUP, or a change of the file, has it take over the file's new content.
pub fn run(args: &EdgeArgs) -> anyhow::Result<()> {
    // Before any thread is started, since it changes the environment.
    let inherited = Inherited::from_environment().context("sockets that were handed over")?;
    let config = read(&args.config)?;
    let logging = ops::log::init(&config.log);
    background()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut file = ConfigFile::new(&args.config);
        let mut running = edge::start(config, inherited).await?;
        let mut ready = pin!(running.ready());
        let mut is_ready = false;
        loop {
            let what = tokio::select! {
                () = ready.as_mut(), if !is_ready => {
                    is_ready = true;
                    notify::ready(SERVING);
                    continue;
                }
                signal = signals.next() => signal,
                () = file.changed(), if running.reloads_on_change() => Signal::Reload,
                () = running.failed() => anyhow::bail!("a part of the edge ended by itself; see the log"),
            };
            match what {
                Signal::Stop => break,
                Signal::Reload => {
                    notify::reloading();
                    file.reading();
                    let status = reload(&mut running, args, &logging).await;
                    // A reload ends with the word that begins the service; before that, the keys are still awaited.
                    if is_ready {
                        notify::ready(status);
                    }
                }
            }
        }
        notify::stopping();
        tokio::select! {
            _ = running.stop() => Ok(()),
            () = signals.stop() => anyhow::bail!("ended at once, as a second signal asked for"),
        }
    })
}

/// Takes over what the file says now, or says why not and leaves everything as it is.
async fn reload(running: &mut edge::Running, args: &EdgeArgs, logging: &Logging) -> &'static str {
    let mut config = read(&args.config);
    if config.is_err() {
        // Whoever writes it may have sent the signal first.
        tokio::time::sleep(HALF_WRITTEN).await;
        config = read(&args.config);
    }
    let taken = match config {
        Ok(config) => {
            let log = config.log.clone();
            let taken = running.reload(config).await;
            if taken.is_ok() {
                logging.set_level(&log);
            }
            taken.map_err(anyhow::Error::from)
        }
        Err(error) => {
            running.reload_failed();
            Err(error)
        }
    };
    let Err(error) = taken else {
        return SERVING;
    };
    for problem in format!("{error:#}").lines() {
        error!(
            problem,
            "the new configuration is refused, the old one stays in force"
        );
    }
    REFUSED
}

/// Checks a configuration; prints every problem, or that there is none.
#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let config = read(&args.config)?;
    let notes =
        edge::check_files(&config).map_err(|problems| anyhow::anyhow!(problems.join("\n")))?;
    for note in notes {
        println!("{note}");
    }
    if args.connect {
        let problems = background()?.block_on(edge::try_connections(&config));
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    }
    println!("{}: no problems", args.config.display());
    Ok(())
}
