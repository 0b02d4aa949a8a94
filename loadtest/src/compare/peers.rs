//! The proxies a user would pick instead, each by its own cheapest means of turning a key into a tenant header. Their settings are
//! the files in `peers/`; here they get keys, ports and a command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::candidate::{Ports, Recipe, Site, free_port, version};

/// Go programs get one processor, as the others get one worker.
fn one_go_processor() -> Vec<(&'static str, String)> {
    vec![("GOMAXPROCS", "1".to_owned())]
}

fn arguments<const N: usize>(words: [&str; N], path: &Path) -> Vec<OsString> {
    words
        .into_iter()
        .map(OsString::from)
        .chain([path.into()])
        .collect()
}

pub(crate) fn nginx(site: &Site, program: PathBuf) -> anyhow::Result<Recipe> {
    let ports = Ports::free()?;
    site.file(
        "nginx.keys",
        &site.key_lines(|pair| format!("\"Bearer {}\" {};", pair.key, pair.tenant)),
    )?;
    let config = site.fill(include_str!("../../peers/nginx.conf"), ports, &[]);
    let config = site.file("nginx.conf", &config)?;
    Ok(Recipe {
        name: "nginx",
        method: "static map, unbuffered, grpc_pass",
        version: version(&program, "-v"),
        arguments: arguments(["-e", "stderr", "-c"], &config),
        program,
        environment: Vec::new(),
        ports,
    })
}

pub(crate) fn haproxy(site: &Site, program: PathBuf) -> anyhow::Result<Recipe> {
    let ports = Ports {
        http1_large: free_port()?,
        ..Ports::free()?
    };
    site.file(
        "haproxy.map",
        &site.key_lines(|pair| format!("{} {}", pair.key, pair.tenant)),
    )?;
    let config = site.fill(include_str!("../../peers/haproxy.cfg"), ports, &[]);
    let config = site.file("haproxy.cfg", &config)?;
    Ok(Recipe {
        name: "haproxy",
        method: "map file, 64 KiB buffers, splice at 1 MiB",
        version: version(&program, "-v"),
        arguments: arguments(["-db", "-f"], &config),
        program,
        environment: Vec::new(),
        ports,
    })
}

pub(crate) fn envoy(site: &Site, program: PathBuf) -> anyhow::Result<Recipe> {
    let ports = Ports::free()?;
    let credentials = site.key_lines(|pair| {
        let indent = " ".repeat(24);
        format!("{indent}- {{ key: {}, client: {} }}", pair.key, pair.tenant)
    });
    let template = include_str!("../../peers/envoy.yaml");
    let config = site.fill(template, ports, &[("credentials", &credentials)]);
    let config = site.file("envoy.yaml", &config)?;
    let mut arguments = arguments(["-c"], &config);
    arguments.extend(
        [
            "--concurrency",
            "1",
            "--log-level",
            "error",
            "--disable-hot-restart",
        ]
        .map(OsString::from),
    );
    Ok(Recipe {
        name: "envoy",
        method: "api_key_auth",
        version: version(&program, "--version"),
        program,
        arguments,
        environment: Vec::new(),
        ports,
    })
}

pub(crate) fn caddy(site: &Site, program: PathBuf) -> anyhow::Result<Recipe> {
    let ports = Ports::free()?;
    let keys = site.key_lines(|pair| format!("\t\t\"Bearer {}\" {}", pair.key, pair.tenant));
    let config = site.fill(
        include_str!("../../peers/Caddyfile"),
        ports,
        &[("keys", &keys)],
    );
    let config = site.file("Caddyfile", &config)?;
    Ok(Recipe {
        name: "caddy",
        method: "map",
        version: version(&program, "version"),
        program,
        arguments: arguments(["run", "--adapter", "caddyfile", "--config"], &config),
        environment: one_go_processor(),
        ports,
    })
}

pub(crate) fn vmauth(site: &Site, program: PathBuf) -> anyhow::Result<Recipe> {
    let ports = Ports {
        grpc: None,
        ..Ports::free()?
    };
    let users = site.key_lines(|pair| {
        format!(
            "- bearer_token: {}\n  url_prefix: http://{}\n  headers: ['X-Scope-OrgID: {}']",
            pair.key, site.upstream, pair.tenant
        )
    });
    let config = site.file("vmauth.yml", &format!("users:\n{users}"))?;
    let arguments = [
        format!("-auth.config={}", config.display()),
        format!("-httpListenAddr=127.0.0.1:{}", ports.http1),
        "-maxIdleConnsPerBackend=512".to_owned(),
        "-loggerLevel=ERROR".to_owned(),
    ];
    Ok(Recipe {
        name: "vmauth",
        method: "bearer users",
        version: version(&program, "-version"),
        program,
        arguments: arguments.map(OsString::from).into(),
        environment: one_go_processor(),
        ports,
    })
}
