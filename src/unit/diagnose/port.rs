//! Suspect: the address of a new listener is unavailable.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use super::explanation::Explanation;
use super::scene::{Scene, ours};
use crate::config::address::Address;
use crate::config::applications::{listeners, listeners_at};
use crate::files;

pub(super) fn taken(scene: &Scene, at: &str, wanted: &Value) -> Option<Explanation> {
    if !scene.network {
        return None;
    }
    let has = |name: &str| listeners(&scene.before).any(|(known, _)| known == name);
    let wanted = listeners_at(at, wanted).into_iter().map(|(name, _)| name);
    wanted.filter(|name| !has(name)).find_map(|name| try_it(scene, &name))
}

/// Tries to listen on an address.
fn try_it(scene: &Scene, name: &str) -> Option<Explanation> {
    let address = Address::read(name.as_bytes())?.socket()?;
    let error = TcpListener::bind(address).err()?;
    let (what, hint) = match error.kind() {
        ErrorKind::AddrInUse => (
            match owner(&scene.proc, address.port()) {
                Some(owner) => format!("port {} is in use by {owner}", address.port()),
                None => format!("port {} is in use by another process in this Pod", address.port()),
            },
            "use another port for the listener or the other process: containers of a Pod share its ports".to_owned(),
        ),
        ErrorKind::AddrNotAvailable => {
            ("no network interface here has that address".to_owned(), format!("listen on \"*:{}\"", address.port()))
        }
        // The privilege is that of podstrap, so this proves something only if Unit has the same user.
        ErrorKind::PermissionDenied if scene.uid().is_some_and(|uid| uid == ours()) && ours() != 0 => (
            format!("uid {} may not listen on ports below 1024", ours()),
            "use port 1024 or above; a Service can map 80 to it".to_owned(),
        ),
        _ => return None,
    };
    Some(Explanation::new(format!("the listener {name:?} is unavailable: {what}"), hint))
}

/// The process that listens on a port, if visible: `pid 7 (nginx)`.
///
/// /proc/net/tcp identifies sockets by inode: `sl local_address rem_address st … uid timeout inode`. State
/// 0A is a listening socket.
fn owner(proc: &Path, port: u16) -> Option<String> {
    let tables = ["net/tcp", "net/tcp6"].map(|name| text(&proc.join(name)));
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let listens = words.get(3) == Some(&"0A") && words.get(1)?.ends_with(&format!(":{port:04X}"));
        listens.then(|| words.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    files::names(proc).ok()?.into_iter().find_map(|name| {
        let name = name.into_string().ok().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))?;
        let process = proc.join(&name);
        let fds = process.join("fd");
        let mut open = files::names(&fds).ok()?.into_iter();
        open.any(|fd| fds.join(fd).read_link().is_ok_and(|link| link == Path::new(&inode)))
            .then(|| format!("pid {name} ({})", text(&process.join("comm")).trim()))
    })
}

/// A file in /proc; empty if it is unreadable.
fn text(path: &Path) -> String {
    String::from_utf8_lossy(&files::read_proc(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, scene, shown};
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    #[test]
    fn a_port_that_is_taken() {
        let dir = dir();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = other.local_addr().unwrap().to_string();
        let port = other.local_addr().unwrap().port().to_string();
        let real = || Scene { proc: "/proc".into(), ..scene(dir.path()) };
        let wanted = json!({"listeners": {&name: {"pass": "routes"}}});
        let told = |scene: Scene, at: &str, wanted: &Value| {
            let text = shown(taken(&scene, at, wanted), dir.path()).replace(&port, "[PORT]");
            text.replace(&std::process::id().to_string(), "[PID]")
        };
        let text = told(real(), "/config", &wanted);
        let comm = text[text.find('(').unwrap()..=text.find(')').unwrap()].to_owned();
        assert_snapshot!(text.replace(&comm, "(…)"), @r#"
        the listener "127.0.0.1:[PORT]" is unavailable: port [PORT] is in use by pid [PID] (…)

        hint: use another port for the listener or the other process: containers of a Pod share its ports
        "#);
        assert_eq!(told(real(), "/config/listeners", &wanted["listeners"]), text);
        assert_eq!(told(real(), &format!("/config/listeners/{name}"), &wanted["listeners"][&name]), text);
        // The listener is Unit's own.
        assert_eq!(told(Scene { before: wanted.clone(), ..real() }, "/config", &wanted), "nothing");
        assert_eq!(told(Scene { network: false, ..real() }, "/config", &wanted), "nothing");
    }

    #[test]
    fn an_address_of_another_machine() {
        let dir = dir();
        let wanted = json!({"listeners": {"192.0.2.1:8300": {}}});
        assert_snapshot!(shown(taken(&scene(dir.path()), "/config", &wanted), dir.path()), @r#"
        the listener "192.0.2.1:8300" is unavailable: no network interface here has that address

        hint: listen on "*:8300"
        "#);
    }
}
