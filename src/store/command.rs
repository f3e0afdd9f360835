//! `podstrap store`: lists, verifies and prunes the entries of a store.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::entry::{Entry, short};
use super::place::Place;
use crate::error::{Error, Result};
use crate::http;
use crate::plan::{Shelves, StoreAction};
use crate::redact;
use crate::signature::{AllowedSigners, Purpose};
use crate::size::{Size, count};

/// The columns of the table.
const COLUMNS: [&str; 7] = ["KEY", "PYTHON", "PACKAGES", "SIZE", "BUILT", "USED", "STATE"];

/// Runs one action. Returns the text for stdout, and the error of damaged entries.
///
/// # Errors
/// Volume: the store is missing, unreadable or not writable. Usage: the file of --store-verify is invalid.
pub fn run(plan: &Shelves) -> Result<(String, Result<()>)> {
    plan.ca_file.as_deref().map_or(Ok(()), http::trust)?;
    let store = Place::new(&plan.at, &plan.auth);
    let verifier = plan.verify.as_deref().map(|file| AllowedSigners::read(file, Purpose::Store)).transpose()?;
    if plan.action == StoreAction::Prune {
        let (deleted, result) = store.prune(plan.limit.unwrap_or(Size(u64::MAX)))?;
        let text = if plan.json {
            format!("{}\n", json!({ "deleted": deleted }))
        } else {
            deleted.iter().fold(String::new(), |text, key| text + "deleted " + short(key) + "\n")
        };
        let hint = "in a directory with a sticky bit, run it as the owner of the file, or as root";
        return Ok((text, result.map_err(|error| error.hint(hint))));
    }
    let mut entries = store.entries()?;
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let mut damaged = 0;
    let rows: Vec<(Entry, String)> = entries
        .into_iter()
        .map(|found| {
            let state = match (plan.action, &found.manifest) {
                (_, Err(_)) if found.is_newer => Ok("newer".to_owned()),
                (_, Err(why)) => Err(why.clone()),
                (StoreAction::Verify, Ok(_)) => match store.verify(&found.key, verifier.as_ref()) {
                    Ok(()) => Ok("ok".to_owned()),
                    Err(why) => Err(why.error().summary()),
                },
                (_, Ok(_)) if found.is_signed => Ok("signed".to_owned()),
                (_, Ok(_)) => Ok("unsigned".to_owned()),
            };
            damaged += u64::from(state.is_err());
            (found, state.unwrap_or_else(|why| why))
        })
        .collect();
    let text = if plan.json {
        let rows: Vec<Value> = rows.iter().map(|(entry, state)| row_in_json(entry, state)).collect();
        escaped(&format!("{:#}\n", Value::from(rows)))
    } else {
        table(&rows)
    };
    let result = if damaged > 0 && plan.action == StoreAction::Verify {
        Err(Error::volume(format!("{} of {} cannot be used", count(damaged, "environment"), plan.at))
            .hint("delete them, or let podstrap replace them at the next build"))
    } else {
        Ok(())
    };
    Ok((text, result))
}

/// JSON that a terminal shows as it is. Only strings have such characters.
fn escaped(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut text, c| {
        match c {
            '\n' => text.push(c),
            c if redact::is_hidden(c) => _ = write!(text, "\\u{:04x}", u32::from(c)),
            c => text.push(c),
        }
        text
    })
}

fn packages(entry: &Entry) -> usize {
    let of = |manifest: &super::Manifest| manifest.environment.get("packages").and_then(Value::as_array).map(Vec::len);
    entry.manifest.as_ref().ok().and_then(of).unwrap_or(0)
}

fn python(entry: &Entry) -> &str {
    entry.manifest.as_ref().ok().and_then(|manifest| manifest.environment.get("python")?.as_str()).unwrap_or("-")
}

fn row_in_json(entry: &Entry, state: &str) -> Value {
    let used = entry.used.map(|used| humantime::format_rfc3339_seconds(used).to_string());
    let manifest = entry.manifest.as_ref().ok().map(|manifest| json!(manifest));
    json!({"key": entry.key, "bytes": entry.bytes, "used_at": used, "state": state, "signed": entry.is_signed,
           "manifest": manifest})
}

fn table(rows: &[(Entry, String)]) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(|(entry, state)| {
        let built = entry.manifest.as_ref().ok().and_then(super::Manifest::age);
        let used = entry.used.and_then(|used| SystemTime::now().duration_since(used).ok());
        [
            short(&entry.key).to_owned(),
            python(entry).to_owned(),
            packages(entry).to_string(),
            Size(entry.bytes).to_string(),
            built.map_or_else(|| "-".to_owned(), ago),
            used.map_or_else(|| "-".to_owned(), ago),
            state.clone(),
        ]
    }));
    // A manifest may have any text.
    let shown = |cell: &String| redact::clean(cell).replace(char::is_control, " ");
    let lines: Vec<Vec<String>> = lines.iter().map(|line| line.iter().map(shown).collect()).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    lines.iter().fold(String::new(), |mut text, line| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        text
    })
}

/// `3h 20m ago`: the two largest units.
pub(crate) fn ago(age: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(age.as_secs())).to_string();
    format!("{} ago", text.split(' ').take(2).collect::<Vec<_>>().join(" "))
}
