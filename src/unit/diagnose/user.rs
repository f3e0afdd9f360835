//! Suspect: the application's `user` or `group`.

use super::accounts::Accounts;
use super::application::NewApp;
use super::explanation::Explanation;
use super::scene::Scene;

/// Unit is not root, and may not switch.
pub(super) fn cannot_switch(scene: &Scene, app: &NewApp) -> Option<Explanation> {
    app.text("user").or(app.text("group"))?;
    let uid = scene.uid().filter(|uid| *uid != 0)?;
    Some(Explanation::new(
        format!("application {:?} names a user or group, but Unit runs as uid {uid} and cannot switch", app.name),
        format!("take \"user\" and \"group\" out of it: it then runs as uid {uid}; or run Unit as root"),
    ))
}

/// It does not exist in Unit's container.
pub(super) fn missing(scene: &Scene, app: &NewApp) -> Option<Explanation> {
    if !scene.files {
        return None;
    }
    [Accounts::Users, Accounts::Groups].into_iter().find_map(|accounts| {
        let (member, file) = (accounts.member(), accounts.file());
        let name = app.text(member).filter(|name| accounts.lacks(scene, name))?;
        Some(Explanation::new(
            format!("application {:?}: there is no {member} {name:?} in this container's /etc/{file}", app.name),
            format!("name one that the image has, or leave \"{member}\" out"),
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
        application "a" names a user or group, but Unit runs as uid 999 and cannot switch

        hint: take "user" and "group" out of it: it then runs as uid 999; or run Unit as root
        "#);
        assert_eq!(ask(cannot_switch, &scene, dir.path(), json!({})), "nothing");
    }

    #[test]
    fn a_user_or_group_that_is_missing() {
        let dir = dir();
        let told = |members| ask(missing, &scene(dir.path()), dir.path(), members);
        assert_snapshot!(told(json!({"user": "ghost"})), @r#"
        application "a": there is no user "ghost" in this container's /etc/passwd

        hint: name one that the image has, or leave "user" out
        "#);
        assert_snapshot!(told(json!({"user": "me", "group": "me"})), @r#"
        application "a": there is no group "me" in this container's /etc/group

        hint: name one that the image has, or leave "group" out
        "#);
        assert_eq!(told(json!({"user": "me"})), "nothing");
    }
}
