//! Suspect: the file of Unit's language module is missing.

use std::path::Path;

use super::application::NewApp;
use super::explanation::Explanation;
use super::scene::Scene;
use crate::files;

pub(super) fn missing(scene: &Scene, app: &NewApp) -> Option<Explanation> {
    let (language, module) = app.language_module(scene)?;
    let lib = Path::new(module.get("lib")?.as_str()?);
    (scene.files && files::exists(lib).is_ok_and(|there| !there)).then(|| {
        Explanation::new(
            format!(
                "application {:?}: Unit's module for {language} is missing: {} does not exist",
                app.name,
                lib.display()
            ),
            "check that no volume hides the image's modules: unitd finds them when it starts, and loads them for \
             each application",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ask, dir, scene};
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    #[test]
    fn a_module_whose_file_is_gone() {
        let dir = dir();
        let told = || ask(missing, &scene(dir.path()), dir.path(), json!({}));
        assert_eq!(told(), "nothing");
        std::fs::remove_file(dir.path().join("python.so")).unwrap();
        assert_snapshot!(told(), @r#"
        application "a": Unit's module for python is missing: [TMP]/python.so does not exist

        hint: check that no volume hides the image's modules: unitd finds them when it starts, and loads them for each application
        "#);
    }
}
