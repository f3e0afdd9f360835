//! Suspect: the application's `user` or `group` is unusable.

use super::accounts::Accounts;
use super::application::NewApp;
use super::explanation::Explanation;
use super::scene::Scene;

/// Unit is not root, so it cannot switch.
pub(super) fn cannot_switch(scene: &Scene, app: &NewApp) -> Option<Explanation> {
    app.text("user").or(app.text("group"))?;
    let uid = scene.uid().filter(|uid| *uid != 0)?;
    Some(Explanation::new(
        format!("application {:?} sets a user or group, but Unit runs as uid {uid} and cannot switch", app.name),
        format!("remove \"user\" and \"group\" to run it as uid {uid}, or run Unit as root"),
    ))
}

/// The user or group does not exist in Unit's container.
pub(super) fn missing(scene: &Scene, app: &NewApp) -> Option<Explanation> {
    if !scene.files {
        return None;
    }
    [Accounts::Users, Accounts::Groups].into_iter().find_map(|accounts| {
        let (member, file) = (accounts.member(), accounts.file());
        let name = app.text(member).filter(|name| accounts.lacks(scene, name))?;
        Some(Explanation::new(
            format!("application {:?}: no {member} {name:?} in this container's /etc/{file}", app.name),
            format!("use a {member} that the image has, or remove \"{member}\""),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ask, dir, scene};
    use super::*;
    use crate::unit::channel::Peer;
    use insta::assert_snapshot;
    use serde_json::json;

    #[test]
    fn a_user_that_unit_cannot_become() {
        let dir = dir();
        let scene = Scene { peer: Some(Peer { pid: Some(1), uid: 999 }), ..scene(dir.path()) };
        assert_snapshot!(ask(cannot_switch, &scene, dir.path(), json!({"user": "me"})), @r#"
        application "a" sets a user or group, but Unit runs as uid 999 and cannot switch

        hint: remove "user" and "group" to run it as uid 999, or run Unit as root
        "#);
        assert_eq!(ask(cannot_switch, &scene, dir.path(), json!({})), "nothing");
    }

    #[test]
    fn a_user_or_group_that_is_missing() {
        let dir = dir();
        let told = |members| ask(missing, &scene(dir.path()), dir.path(), members);
        assert_snapshot!(told(json!({"user": "ghost"})), @r#"
        application "a": no user "ghost" in this container's /etc/passwd

        hint: use a user that the image has, or remove "user"
        "#);
        assert_snapshot!(told(json!({"user": "me", "group": "me"})), @r#"
        application "a": no group "me" in this container's /etc/group

        hint: use a group that the image has, or remove "group"
        "#);
        assert_eq!(told(json!({"user": "me"})), "nothing");
    }
}
