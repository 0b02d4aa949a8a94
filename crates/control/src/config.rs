//! The control plane's configuration file. `config/control/control.toml` documents every key.

use std::net::{Ipv4Addr, SocketAddr};

use ops::config::{ConfigError, Section, read};
use ops::log::LogSettings;
use store::DatabaseUrl;

/// The port of the admin API unless told otherwise.
const PORT: u16 = 9601;
const CONNECTIONS: u32 = 10;

/// What the control plane needs to know.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Where the admin API listens.
    pub listen: SocketAddr,
    /// Where tenants and keys are kept.
    pub database: DatabaseUrl,
    /// The most connections to the database at a time.
    pub database_connections: u32,
    /// What is logged, and how.
    pub log: LogSettings,
}

impl ControlConfig {
    /// Reads the text of a configuration file named `file`. `database_url`, from the environment, goes before the file's.
    ///
    /// # Errors
    /// Every problem of the file at once, each with its line.
    pub fn parse(file: &str, text: &str, database_url: Option<&str>) -> Result<Self, ConfigError> {
        read(file, text, |root| {
            let listen = root.or("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
            let section = root.section("database");
            let database = database(&section, database_url);
            let database_connections = section.or("connections", CONNECTIONS);
            if database_connections == 0 {
                section.problem("connections", "must be at least 1");
            }
            section.finish();
            let section = root.section("log");
            let log = LogSettings::read(&section);
            section.finish();
            Some(Self {
                listen,
                database: database?,
                database_connections,
                log,
            })
        })
    }
}

fn database(section: &Section<'_>, from_environment: Option<&str>) -> Option<DatabaseUrl> {
    let fix = "write url = \"postgres://USER@HOST/NAME\" or set OKMON_DATABASE_URL";
    let (text, source) = match from_environment {
        Some(text) => {
            section.optional::<String>("url");
            (text.to_owned(), "in OKMON_DATABASE_URL: ")
        }
        None => (section.required::<String>("url", fix)?, ""),
    };
    text.parse()
        .map_err(|error| section.problem("url", format!("{source}{error}")))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_is_valid_and_shows_the_defaults() {
        let text = include_str!("../../../config/control/control.toml");
        let documented = ControlConfig::parse("control.toml", text, None).unwrap();
        let least = "[database]\nurl = \"postgres://tenants@127.0.0.1/tenants\"";
        let default = ControlConfig::parse("control.toml", least, None).unwrap();
        assert_eq!(format!("{documented:?}"), format!("{default:?}"));
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_line() {
        let text = "listen = \"9601\"\n[database]\nurl = \"mysql://u:secret@h/d\"\nconnections = 0\ncolour = 1\n";
        let error = ControlConfig::parse("c.toml", text, None)
            .unwrap_err()
            .to_string();
        for expected in [
            "c.toml:1: listen: ",
            "c.toml:3: database.url: ",
            "c.toml:4: database.connections: ",
            "c.toml:5: database.colour: ",
        ] {
            assert!(error.contains(expected), "{expected} in {error}");
        }
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let config = ControlConfig::parse("c.toml", "", Some("sqlite://x.db")).unwrap();
        assert_eq!(config.database.to_string(), "sqlite://x.db");
        let missing = ControlConfig::parse("c.toml", "", None)
            .unwrap_err()
            .to_string();
        assert!(missing.contains("OKMON_DATABASE_URL"), "{missing}");
    }
}
