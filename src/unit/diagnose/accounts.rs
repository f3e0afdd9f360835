//! Users and groups in `/etc/passwd` and `/etc/group` of this container.

use std::collections::HashMap;

use super::application::NewApp;
use super::scene::Scene;
use crate::files::{self, WRITTEN};

/// One of the two files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Accounts {
    Users,
    Groups,
}

impl Accounts {
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Users => "passwd",
            Self::Groups => "group",
        }
    }

    /// The application's member that refers to this file.
    pub(super) fn member(self) -> &'static str {
        match self {
            Self::Users => "user",
            Self::Groups => "group",
        }
    }

    fn read(self, scene: &Scene) -> Option<String> {
        files::read_text(&scene.etc.join(self.file()), WRITTEN).ok()
    }

    /// Whether a name is missing. False if the file is unreadable.
    pub(super) fn lacks(self, scene: &Scene, name: &str) -> bool {
        self.read(scene).is_some_and(|text| !text.lines().any(|line| line.split(':').next() == Some(name)))
    }
}

/// The uid and gid of an application's processes.
///
/// A Unit that is not root uses its own. Root uses the application's `user`, else unitd's `--user`, else
/// the default of the build: `unit` in the images, `nobody` otherwise.
pub(super) fn runs_as(scene: &Scene, app: &NewApp) -> Option<(u32, u32)> {
    let uid = scene.uid()?;
    let text = Accounts::Users.read(scene).unwrap_or_default();
    let users: HashMap<_, _> = text.lines().filter_map(user).collect();
    if uid != 0 {
        return Some(users.values().find(|(known, _)| *known == uid).copied().unwrap_or((uid, uid)));
    }
    let named = app.text("user").map(str::to_owned).or_else(|| scene.option("--user"));
    let (uid, own) = *match named {
        Some(name) => users.get(name.as_str()),
        None => users.get("unit").or_else(|| users.get("nobody")),
    }?;
    let groups = Accounts::Groups.read(scene).unwrap_or_default();
    let gid = app.text("group").and_then(|name| {
        groups.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok())
    });
    Some((uid, gid.unwrap_or(own)))
}

/// Parses `name:x:uid:gid:…`.
fn user(line: &str) -> Option<(&str, (u32, u32))> {
    let mut parts = line.split(':');
    let (name, uid, gid) = (parts.next()?, parts.nth(1)?, parts.next()?);
    Some((name, (uid.parse().ok()?, gid.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, scene};
    use super::*;
    use crate::unit::channel::Peer;
    use serde_json::json;
    use std::fs;

    #[test]
    fn an_application_runs_as_its_user() {
        let dir = dir();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:\nme:x:7:8::/:\nnobody:x:65534:65534::/:\n").unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:\nus:x:9:me\n").unwrap();
        for (unit, members, runs) in [
            (0, json!({}), Some((65534, 65534))),
            (0, json!({"user": "me"}), Some((7, 8))),
            (0, json!({"user": "me", "group": "us"}), Some((7, 9))),
            (0, json!({"user": "ghost"}), None),
            (7, json!({}), Some((7, 8))),
            (12345, json!({}), Some((12345, 12345))),
        ] {
            let scene = Scene { peer: Some(Peer { pid: Some(1), uid: unit }), ..scene(dir.path()) };
            assert_eq!(runs_as(&scene, &NewApp { name: "a".into(), members: &members }), runs, "{unit} {members}");
        }
    }
}
