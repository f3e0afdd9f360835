//! `podstrap status`: shows Unit's listeners and applications, and checks that every application runs.

use std::fmt::Write as _;

use hyper::Method;
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout_at;

use super::client::Client;
use super::deadline::gave_up;
use super::{channel, prove, wait};
use crate::config::applications::{applications, listeners};
use crate::config::dialect;
use crate::error::{Error, Kind, Result};
use crate::plan::Control;
use crate::redact;
use crate::retry::Deadline;

/// Unit's configuration and status.
#[derive(Debug)]
pub struct UnitStatus {
    control: Control,
    server: String,
    config: Value,
    /// The body of `GET /status`: connections, requests, applications; modules since Unit 1.34.
    told: Value,
}

/// Asks Unit for its configuration and its status.
///
/// # Errors
/// `UnitUnreachable`: no usable answer before the deadline.
pub async fn status(control: Option<&Control>, deadline: Deadline) -> Result<UnitStatus> {
    let client = Client::default();
    let found = wait::wait(&client.controls(control), &client.proc, deadline).await?;
    let asked = timeout_at(deadline.instant(), channel::send(&found.control, Method::GET, "/status", Bytes::new()));
    let failed = || Error::new(Kind::UnitUnreachable, format!("no status from Unit at {}", found.control));
    let reply = match asked.await {
        Ok(Ok(reply)) => reply,
        Ok(Err(failure)) => return Err(failed().because(failure.to_string())),
        Err(_) => {
            return Err(failed()
                .because(gave_up(1, deadline))
                .hint("retry later: Unit gives no status while it applies a configuration or starts an application"));
        }
    };
    if reply.status != 200 {
        return Err(failed()
            .because(format!("{} answered {}", reply.server, reply.status))
            .hint("use Unit 1.29 or later: older versions have no status"));
    }
    let value = |bytes: &[u8]| dialect::to_value(bytes).map_err(|error| failed().because(error));
    let (config, status) = (value(&found.config)?, value(&reply.body)?);
    Ok(UnitStatus { control: found.control, server: found.server, config, told: status })
}

impl UnitStatus {
    /// One object: `server`, `control`, `listeners` (as configured), `applications` (name →
    /// `{type, processes: {running, starting, idle}, requests: {active}, well}`), and Unit's own
    /// `connections`, `requests` and `modules`. With `follow`, that is a member too.
    pub fn json(&self, follow: Option<&impl Serialize>) -> String {
        let applications: Map<_, _> = self
            .applications()
            .map(|(name, app)| {
                let status = self.of(name);
                let one = json!({
                    "type": app["type"],
                    "processes": status["processes"],
                    "requests": status["requests"],
                    "well": self.is_well(name, app),
                });
                (name.clone(), one)
            })
            .collect();
        let mut all = json!({
            "server": self.server,
            "control": self.control.to_string(),
            "listeners": self.config["listeners"],
            "applications": applications,
            "connections": self.told["connections"],
            "requests": self.told["requests"],
            "modules": self.told["modules"],
        });
        if let Some(follow) = follow {
            all["follow"] = json!(follow);
        }
        format!("{all:#}\n")
    }

    /// Tables for people.
    pub fn text(&self) -> String {
        let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let mut text = format!(
            "{} at {}: {} requests, {} connections active\n",
            self.server,
            self.control,
            number(&self.told["requests"]["total"]),
            number(&self.told["connections"]["active"])
        );
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let mut rows = vec![["LISTENER", "PASS"].map(str::to_owned).to_vec()];
        for (name, listener) in listeners(&self.config) {
            rows.push(vec![name.clone(), word(&listener["pass"])]);
        }
        table(&mut text, &rows);
        let head = ["APPLICATION", "TYPE", "RUNNING", "STARTING", "IDLE", "REQUESTS"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (name, app) in self.applications() {
            let status = self.of(name);
            let processes = ["running", "starting", "idle"].map(|kind| number(&status["processes"][kind]));
            let mut row = vec![name.clone(), word(&app["type"])];
            row.extend(processes);
            row.push(number(&status["requests"]["active"]));
            rows.push(row);
        }
        table(&mut text, &rows);
        redact::clean(&text)
    }

    /// Checks that every application that Unit starts without a request has a process.
    ///
    /// # Errors
    /// `Probe`: an application has none, or Unit has no listener.
    pub fn well(&self) -> Result<()> {
        if listeners(&self.config).next().is_none() {
            let what = format!("Unit at {} serves nothing: its configuration has no listener", self.control);
            return Err(Error::new(Kind::Probe, what)
                .hint("read the log of the container that applies the configuration (a hook, or podstrap sidecar)"));
        }
        let bad: Vec<_> = self
            .applications()
            .filter(|(name, app)| !self.is_well(name, app))
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        if bad.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Probe, format!("no running process of {} in Unit at {}", bad.join(", "), self.control))
            .hint("read Unit's log (`kubectl logs POD -c CONTAINER`) for the reason"))
    }

    fn applications(&self) -> impl Iterator<Item = (&String, &Value)> {
        applications(&self.config)
    }
    fn of(&self, name: &str) -> &Value {
        &self.told["applications"][name]
    }
    fn is_well(&self, name: &str, app: &Value) -> bool {
        !prove::is_kept_running(app) || self.of(name)["processes"]["running"].as_u64().is_some_and(|count| count > 0)
    }
}

/// Appends a table with aligned columns; nothing if it has only a header.
fn table(text: &mut String, rows: &[Vec<String>]) {
    if rows.len() < 2 {
        return;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    for row in rows {
        let line = row.iter().zip(&widths).fold(String::new(), |line, (word, width)| format!("{line}{word:<width$}  "));
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn status(running: u64) -> UnitStatus {
        UnitStatus {
            control: Control::Unix("/run/unit.sock".into()),
            server: "Unit/1.35.0".into(),
            config: json!({
                "listeners": {"*:8300": {"pass": "applications/flask"}, "127.0.0.1:80": {"pass": "routes"}},
                "applications": {
                    "flask": {"type": "python 3"},
                    "rare": {"type": "php", "processes": {"max": 2}},
                },
            }),
            told: json!({
                "connections": {"active": 1}, "requests": {"total": 23},
                "applications": {
                    "flask": {"processes": {"running": running, "starting": 0, "idle": 1}, "requests": {"active": 1}},
                    "rare": {"processes": {"running": 0, "starting": 0, "idle": 0}, "requests": {"active": 0}},
                },
            }),
        }
    }

    #[test]
    fn a_table() {
        assert_snapshot!(status(2).text(), @r"
        Unit/1.35.0 at unix:/run/unit.sock: 23 requests, 1 connections active
        LISTENER      PASS
        *:8300        applications/flask
        127.0.0.1:80  routes
        APPLICATION  TYPE      RUNNING  STARTING  IDLE  REQUESTS
        flask        python 3  2        0         1     1
        rare         php       0        0         0     0
        ");
        status(2).well().unwrap();
    }

    #[test]
    fn a_unit_without_a_configuration_is_not_well() {
        let told = [json!({}), json!({"listeners": {}, "applications": {}})]
            .map(|config| UnitStatus { config, ..status(1) }.well().unwrap_err().to_string());
        assert_eq!(told[0], told[1]);
        assert_snapshot!(told[0], @r"
        error: Unit at unix:/run/unit.sock serves nothing: its configuration has no listener
        hint: read the log of the container that applies the configuration (a hook, or podstrap sidecar)
        ");
    }

    #[test]
    fn an_application_without_a_process_is_not_well() {
        assert_snapshot!(status(0).well().unwrap_err().to_string(), @r#"
        error: no running process of "flask" in Unit at unix:/run/unit.sock
        hint: read Unit's log (`kubectl logs POD -c CONTAINER`) for the reason
        "#);
        let json: Value = serde_json::from_str(&status(0).json(None::<&Value>)).unwrap();
        assert_eq!(
            (&json["applications"]["flask"]["well"], &json["applications"]["rare"]["well"]),
            (&false.into(), &true.into())
        );
    }
}
