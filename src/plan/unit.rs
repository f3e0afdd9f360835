//! `podstrap apply`, `sidecar` and `status`: the control socket and the configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::paths::absolute;
use crate::cli;
use crate::error::{Error, Result};
use crate::retry::Deadline;

/// The plan of `podstrap apply`.
#[derive(Debug)]
pub struct Apply {
    /// A file or a directory.
    pub config: PathBuf,
    /// The part of Unit's configuration to replace: `/config` or a path below it.
    pub path: String,
    /// `None` tries the usual paths in order.
    pub control: Option<Control>,
    pub probe: Option<reqwest::Url>,
    pub deadline: Deadline,
}

/// The plan of `podstrap sidecar`.
#[derive(Debug)]
pub struct Sidecar {
    /// A file or a directory.
    pub config: PathBuf,
    /// `None` tries the usual paths in order.
    pub control: Option<Control>,
    pub probe: Option<reqwest::Url>,
    /// Time limit for one apply.
    pub timeout: Duration,
}

/// The plan of `podstrap status`.
#[derive(Debug)]
pub struct Status {
    /// `None` tries the usual paths in order.
    pub control: Option<Control>,
    pub json: bool,
    /// The volume of a sidecar that follows, absolute.
    pub root: Option<PathBuf>,
    pub deadline: Deadline,
}

/// Address of Unit's control API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Unix(PathBuf),
    Http(reqwest::Url),
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

impl Apply {
    pub fn new(args: cli::ApplyArgs) -> Result<Self> {
        Ok(Self {
            config: absolute("--config", &args.config)?,
            path: config_path(&args.path)?,
            control: args.control_socket.as_deref().map(Control::new).transpose()?,
            probe: args.probe.as_deref().map(probe_url).transpose()?,
            deadline: Deadline::after(args.timeout),
        })
    }
}

impl Sidecar {
    /// `config` is the value of `--config`.
    pub(super) fn new(args: &cli::SidecarArgs, config: &Path) -> Result<Self> {
        Ok(Self {
            config: absolute("--config", config)?,
            control: args.control_socket.as_deref().map(Control::new).transpose()?,
            probe: args.probe.as_deref().map(probe_url).transpose()?,
            timeout: args.timeout,
        })
    }
}

impl Status {
    pub fn new(args: cli::StatusArgs) -> Result<Self> {
        Ok(Self {
            control: args.control_socket.as_deref().map(Control::new).transpose()?,
            json: args.format == cli::OutputFormat::Json,
            root: args.root.as_deref().map(|root| absolute("--root", root)).transpose()?,
            deadline: Deadline::after(args.timeout),
        })
    }
}

impl Control {
    fn new(text: &str) -> Result<Self> {
        let unusable = |why: &str| {
            Error::usage(format!("--control-socket {text}: {why}"))
                .hint("give PATH, unix:PATH as for unitd's --control, or http://HOST:PORT")
        };
        if text.starts_with("http://") {
            let url = reqwest::Url::parse(text).map_err(|error| unusable(&error.to_string()))?;
            return Ok(Self::Http(url));
        }
        let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")).unwrap_or(text);
        if path.is_empty() || text.starts_with("https://") {
            return Err(unusable("neither the path of a socket nor an http:// address"));
        }
        Ok(Self::Unix(absolute("--control-socket", Path::new(path))?))
    }
}

/// The most bytes of a path. Unit accepts 1,024 bytes for the request line and the headers together.
const PATH_MAX: usize = 900;

/// A path in Unit's configuration, without a trailing slash.
fn config_path(text: &str) -> Result<String> {
    let path = text.trim_end_matches('/');
    let unusable = |why: &str| {
        Err(Error::usage(format!("--path {text}: {why}"))
            .hint("give /config or a part of it, such as /config/applications/app; write %2F for a / in a name"))
    };
    if path != "/config" && !path.starts_with("/config/") {
        return unusable("Unit's configuration starts at /config");
    }
    if path.len() > PATH_MAX {
        return unusable(&format!("it is longer than {PATH_MAX} bytes"));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)) {
        return unusable("it contains a character that is invalid in a URL path");
    }
    Ok(path.to_owned())
}

fn probe_url(text: &str) -> Result<reqwest::Url> {
    let url = reqwest::Url::parse(text).map_err(|error| {
        Error::usage(format!("--probe {text} is not a URL"))
            .because(error)
            .hint("give the full URL of the listener, such as http://127.0.0.1:8300/")
    })?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(Error::usage(format!("--probe {text}: {other}:// is not HTTP"))
            .hint("give the full URL of the listener, such as http://127.0.0.1:8300/")),
    }
}

/// The address of a control socket survives a round trip.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    if let Ok(control) = Control::new(text) {
        assert_eq!(Control::new(&control.to_string()).ok().map(|again| again.to_string()), Some(control.to_string()));
    }
    let _ = probe_url(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_addresses_take_the_forms_of_unitd() {
        for text in ["/run/x.sock", "unix:/run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(Control::new(text).unwrap(), Control::Unix("/run/x.sock".into()), "{text}");
        }
        assert_eq!(Control::new("http://127.0.0.1:8080").unwrap().to_string(), "http://127.0.0.1:8080");
        assert_eq!(config_path("/config/").unwrap(), "/config");
        assert_eq!(config_path("/config/listeners/*:80").unwrap(), "/config/listeners/*:80");
        assert!(
            config_path("/status").is_err() && config_path("/configx").is_err() && config_path("/config/a b").is_err()
        );
        assert!(Control::new("unix:").is_err() && Control::new("https://x").is_err());
    }
}
